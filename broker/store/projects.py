"""Queries on projects and their secrets."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from broker.tables import ProjectRow, SecretRow


async def add_project(session: AsyncSession, name: str, providers: Collection[str], now: datetime) -> ProjectRow | None:
    """Add a project, or None when the name is taken."""
    if await session.get(ProjectRow, name) is not None:
        return None
    row = ProjectRow(name=name, providers=list(providers), added_at=now)
    session.add(row)
    await session.flush()
    return row


async def project(session: AsyncSession, name: str) -> ProjectRow | None:
    return await session.get(ProjectRow, name)


async def projects(session: AsyncSession) -> list[ProjectRow]:
    return list(await session.scalars(select(ProjectRow).order_by(ProjectRow.name)))


async def put_secret(session: AsyncSession, project_name: str, name: str, box: bytes, now: datetime) -> None:
    row = await session.get(SecretRow, (project_name, name))
    if row is None:
        session.add(SecretRow(project=project_name, name=name, box=box, set_at=now))
    else:
        row.box, row.set_at = box, now
    await session.flush()


async def remove_secret(session: AsyncSession, project_name: str, name: str) -> bool:
    query = delete(SecretRow).where(SecretRow.project == project_name, SecretRow.name == name).returning(SecretRow.name)
    return (await session.scalar(query)) is not None


async def secrets(session: AsyncSession, project_name: str) -> list[SecretRow]:
    query = select(SecretRow).where(SecretRow.project == project_name).order_by(SecretRow.name)
    return list(await session.scalars(query))


async def secret_boxes(session: AsyncSession, project_name: str, names: Collection[str]) -> dict[str, bytes]:
    """The encrypted values of those of `names` that are set."""
    query = select(SecretRow).where(SecretRow.project == project_name, SecretRow.name.in_(names))
    return {row.name: row.box for row in await session.scalars(query)}
