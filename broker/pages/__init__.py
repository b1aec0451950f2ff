"""The controller's face for people with a browser: runs, jobs, live logs, costs, providers, alarms (DESIGN §11).

Rendered here, so that all of it works without JavaScript but following a log as it grows. Nothing is loaded from
elsewhere. What jobs and providers say is hostile text: templates escape it, and logs lose everything that is not text.

Where to look:

* `wording`, `log_text`, `graph_picture`, `cost` – pure: how values look
* `facts` – what a page tells, gathered from the database
* `logins` – browser sessions, by API token
* `rendering`, `streams`, `web` – templates, server-sent events, routes
"""
