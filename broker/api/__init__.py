"""The controller's HTTP API under `/api/v1`, which the pages and the command line both use (DESIGN §11).

`access` – who may ask · `answers` – refusals as JSON, with their status · `projects`, `providers`, `runs`, `usage` –
the routes by subject · `app` – all of it as one application, with OpenAPI at `/api/v1/openapi.json`
"""
