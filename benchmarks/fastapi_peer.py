"""The same five endpoints as FastAPI's and SQLModel's documentation would have one write them.

A session and the user by dependencies, response models, `def` endpoints; PyJWT and psycopg 3. It leaves out ETag, Link,
Location, If-Match, filters and cursors, to its own advantage. Sources: fastapi.tiangolo.com/tutorial/sql-databases,
fastapi.tiangolo.com/tutorial/security/oauth2-jwt, sqlmodel.tiangolo.com/tutorial/fastapi.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID, uuid4

import jwt
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import OAuth2PasswordBearer
from sqlalchemy import DateTime
from sqlmodel import Field, Session, SQLModel, create_engine, desc, select

SECRET = os.environ["JWT_SECRET"]

# The driver's name, as SQLAlchemy wants it.
engine = create_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1))
oauth2_scheme = OAuth2PasswordBearer(tokenUrl="token")
app = FastAPI()


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


class User(SQLModel, table=True):
    """A user."""

    __tablename__ = "users"

    id: UUID = Field(primary_key=True)
    email: str | None = Field(default=None, unique=True)


class TaskBase(SQLModel):
    """What a client may set."""

    title: str = Field(min_length=1, max_length=200)
    description: str | None = Field(default=None, max_length=2000)
    is_completed: bool = False


class Task(TaskBase, table=True):
    """A row, in taskapi's own table."""

    __tablename__ = "tasks"

    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE", primary_key=True)
    id: UUID = Field(default_factory=uuid4, primary_key=True)
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    updated_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))


class TaskPublic(SQLModel):
    """What a client sees."""

    id: UUID
    user_id: UUID
    title: str
    description: str | None
    is_completed: bool
    created_at: datetime
    updated_at: datetime


class TaskUpdate(SQLModel):
    """What a client may change."""

    title: str | None = Field(default=None, min_length=1, max_length=200)
    description: str | None = Field(default=None, max_length=2000)
    is_completed: bool | None = None


def get_session() -> Iterator[Session]:
    """A session per request."""
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]
TokenDep = Annotated[str, Depends(oauth2_scheme)]


def get_current_user(session: SessionDep, token: TokenDep) -> User:
    """Return the user that the token names."""
    unauthorized = HTTPException(401, "Could not validate credentials", headers={"WWW-Authenticate": "Bearer"})
    try:
        payload = jwt.decode(token, SECRET, algorithms=["HS256"])
        user = session.get(User, UUID(payload["sub"]))
    except (jwt.InvalidTokenError, KeyError, ValueError):
        raise unauthorized from None
    if user is None:
        raise unauthorized
    return user


CurrentUser = Annotated[User, Depends(get_current_user)]


def get_own_task(task_id: UUID, session: SessionDep, user: CurrentUser) -> Task:
    """Return the task of that id, if it is the user's."""
    task = session.get(Task, (user.id, task_id))
    if task is None:
        raise HTTPException(404, "Task not found")
    return task


OwnTask = Annotated[Task, Depends(get_own_task)]


@app.get("/api/tasks", response_model=list[TaskPublic])
def list_tasks(session: SessionDep, user: CurrentUser, limit: Annotated[int, Query(ge=1, le=100)] = 50) -> object:
    """The newest tasks."""
    newest = desc(Task.created_at), desc(Task.id)
    return session.exec(select(Task).where(Task.user_id == user.id).order_by(*newest).limit(limit)).all()


@app.post("/api/tasks", response_model=TaskPublic, status_code=201)
def create_task(task: TaskBase, session: SessionDep, user: CurrentUser) -> object:
    """A new task."""
    created = Task.model_validate(task, update={"user_id": user.id})
    session.add(created)
    session.commit()
    session.refresh(created)
    return created


@app.get("/api/tasks/{task_id}", response_model=TaskPublic)
def get_task(task: OwnTask) -> object:
    """One task."""
    return task


@app.put("/api/tasks/{task_id}", response_model=TaskPublic)
def update_task(changes: TaskUpdate, task: OwnTask, session: SessionDep) -> object:
    """The task with the given fields changed."""
    task.sqlmodel_update(changes.model_dump(exclude_unset=True), update={"updated_at": now()})
    session.add(task)
    session.commit()
    session.refresh(task)
    return task


@app.delete("/api/tasks/{task_id}", response_model=TaskPublic)
def delete_task(task: OwnTask, session: SessionDep) -> object:
    """The task as it was."""
    session.delete(task)
    session.commit()
    return task
