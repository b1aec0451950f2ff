"""Routes on projects and their secrets."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from broker.api.answers import granted
from broker.controller import Controller
from broker.views import ProjectView, SecretView
from schemas.ids import Label, ProviderName
from schemas.orders import EnvName

router = APIRouter(prefix="/projects", tags=["projects"])


class NewProject(BaseModel):
    """Empty `providers` leave the choice to placement."""

    model_config = ConfigDict(extra="forbid")

    name: Label
    providers: tuple[ProviderName, ...] = ()


class NewSecret(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    value: Annotated[str, Field(min_length=1, max_length=32 * 1024)]


def controller_of(request: Request) -> Controller:
    controller: Controller = request.app.state.controller
    return controller


@router.get("")
async def list_projects(request: Request) -> list[ProjectView]:
    rows = await controller_of(request).projects.all()
    return [ProjectView(name=row.name, providers=tuple(row.providers), added_at=row.added_at) for row in rows]


@router.post("", status_code=201)
async def add_project(request: Request, new: NewProject) -> ProjectView:
    row = granted(await controller_of(request).projects.add(new.name, new.providers))
    return ProjectView(name=row.name, providers=tuple(row.providers), added_at=row.added_at)


@router.get("/{project}/secrets")
async def list_secrets(request: Request, project: str) -> list[SecretView]:
    """The names of the secrets; their values are never shown."""
    rows = granted(await controller_of(request).projects.secrets(project))
    return [SecretView(name=row.name, set_at=row.set_at) for row in rows]


@router.put("/{project}/secrets/{name}", status_code=204)
async def set_secret(request: Request, project: str, name: EnvName, new: NewSecret) -> Response:
    granted(await controller_of(request).projects.set_secret(project, name, new.value))
    return Response(status_code=204)


@router.delete("/{project}/secrets/{name}", status_code=204)
async def remove_secret(request: Request, project: str, name: EnvName) -> Response:
    granted(await controller_of(request).projects.remove_secret(project, name))
    return Response(status_code=204)
