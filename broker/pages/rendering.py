"""Templates and assets as responses, with the headers that keep a page harmless.

Every template escapes by default and fails on a name that it does not know. The policy (CSP level 3) allows scripts,
styles and pictures from here only, none of them inline: what would slip through the escaping still could not run.
Assets are read once and addressed by their content, so browsers may keep them.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from broker.pages import wording
from broker.pages.graph_picture import BOX_HEIGHT, BOX_WIDTH
from schemas.ids import sha256_hex

HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_KEEP = "public, max-age=31536000, immutable"


class Assets:
    """The few files beside the pages."""

    def __init__(self) -> None:
        files = sorted((HERE / "assets").iterdir())
        self._files = {path.name: path.read_bytes() for path in files if path.suffix in _TYPES}

    def url(self, name: str) -> str:
        return f"/assets/{name}?v={sha256_hex(self._files[name])[:12]}"

    def answer(self, name: str) -> Response | None:
        data = self._files.get(name)
        if data is None:
            return None
        headers = {"cache-control": _KEEP, "content-security-policy": POLICY}
        return Response(data, media_type=_TYPES[Path(name).suffix], headers=headers)


class Rendering:
    """Renders templates."""

    def __init__(self, assets: Assets) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            name: getattr(wording, name) for name in ("duration", "instant", "size", "number", "short")
        }
        self._environment.filters["part"] = partial(quote, safe="")
        self._environment.globals |= {
            "asset": assets.url,
            "between": wording.between,
            "age": wording.age,
            "box_width": BOX_WIDTH,
            "box_height": BOX_HEIGHT,
        }

    def page(self, template: str, now: datetime, facts: Mapping[str, object], status: int = 200) -> HTMLResponse:
        text = self._environment.get_template(template).render(**facts, now=now)
        return HTMLResponse(text, status_code=status, headers={"content-security-policy": POLICY})
