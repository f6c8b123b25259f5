"""What clients send and get about accounts, log-in sessions, API keys and tickets."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from service.core.validation import AS_DIGITS, VISIBLE, Future, Input, Text, not_blank

USERNAME = r"^[A-Za-z0-9._-]{3,50}$"
PASSWORD_LENGTH = range(8, 257)
MAX_DECOMPOSED_CHARACTERS = 4 * PASSWORD_LENGTH[-1]


def _composed(password: str) -> str:
    """Give the NFC form, whose characters are counted; far too long a text, slow to compose, stays as it is."""
    return unicodedata.normalize("NFC", password) if len(password) <= MAX_DECOMPOSED_CHARACTERS else password


Role = Literal["user", "admin"]
Composed = Annotated[Text, AfterValidator(_composed)]
Password = Annotated[Composed, Field(min_length=PASSWORD_LENGTH[0], max_length=PASSWORD_LENGTH[-1])]


class Registration(Input):
    """A new account."""

    username: Annotated[str, Field(pattern=USERNAME, description="Unique without regard to case.", examples=["ada"])]
    password: Annotated[Password, Field(description="Any script.", examples=["correct horse battery staple"])]
    role: Annotated[Role, Field(description="Only an administrator may set `admin`.")] = "user"


class PasswordChange(Input):
    """A new password, by who knows the present one."""

    current_password: Annotated[
        Composed, Field(max_length=PASSWORD_LENGTH[-1], examples=["correct horse battery staple"])
    ]
    new_password: Annotated[Password, Field(examples=["another horse, another staple"])]


class AccountChange(Input):
    """Another role of an account, or whether it is active; what is absent stays."""

    role: Role = Field(default_factory=lambda: "user")
    active: bool = Field(default_factory=lambda: True, strict=True, examples=[False])


class AccountQuery(Input):
    """A page of accounts."""

    q: Annotated[str | None, Field(max_length=50, pattern="^[A-Za-z0-9._-]*$", description="How names begin.")] = None
    sort: Annotated[Literal["username", "-username"], Field(description="`-` first: descending.")] = "username"
    limit: Annotated[int, Field(ge=1, le=100, description="Of a page."), AS_DIGITS] = 20
    cursor: Annotated[str | None, Field(max_length=2000, description="`next_cursor` of the page before.")] = None


class Account(BaseModel):
    """An account as others see it."""

    id: int
    username: str
    role: Role
    created_at: datetime


class Member(Account):
    """An account as administrators see it."""

    active: Annotated[bool, Field(description="One that is not cannot log in, and nothing of it is good any more.")]


class MemberPage(BaseModel):
    """A page of accounts."""

    items: list[Member]
    next_cursor: Annotated[str | None, Field(description="Gives the next page; null on the last one.")]


class Credentials(Input):
    """A log-in."""

    username: Annotated[Text, Field(max_length=256, examples=["ada"])]
    password: Annotated[Composed, Field(max_length=PASSWORD_LENGTH[-1], examples=["correct horse battery staple"])]


class Refresh(Input):
    """A refresh token, to be spent."""

    refresh_token: Annotated[Text, Field(max_length=200, examples=["AAAAAAAAAAE…"])]


class Token(BaseModel):
    """An access token, which goes into `Authorization: Bearer …`, and what gives the next one."""

    access_token: Annotated[str, Field(examples=["eyJhbGciOiJIUzI1NiIs…"])]
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - RFC 6750's word
    expires_in: Annotated[int, Field(description="Seconds, of the access token.", examples=[900])]
    refresh_token: Annotated[
        str,
        Field(description="Good once: `POST /auth/refresh` gives the next one.", examples=["AAAAAAAAAAE…"]),
    ]


class Session(BaseModel):
    """A log-in that is not over."""

    id: int
    created_at: datetime
    last_used_at: Annotated[datetime, Field(description="When its refresh token was last used.")]
    expires_at: datetime
    client_address: str | None
    user_agent: str | None
    current: Annotated[bool, Field(description="Whether it is the one that asks.")]


class SessionList(BaseModel):
    """One's own sessions, the newest first."""

    items: list[Session]


class NewKey(Input):
    """An API key to be made."""

    name: Annotated[
        Text, Field(min_length=1, max_length=100, examples=["nightly report"]), AfterValidator(not_blank), VISIBLE
    ]
    expires_at: Annotated[Future | None, Field(description="Null: it does not.", examples=["2030-01-01T00:00:00Z"])] = (
        None
    )
    read_only: Annotated[bool, Field(strict=True, description="Whether it may only read.", examples=[True])] = False


class Key(BaseModel):
    """An API key, without what it is."""

    id: int
    name: str
    read_only: bool
    created_at: datetime
    expires_at: datetime | None
    last_used_at: Annotated[
        datetime | None, Field(description="When it was last used, written at most once an hour. Null: never.")
    ]


class MadeKey(Key):
    """An API key, shown this once."""

    key: Annotated[str, Field(description="Goes into `Authorization: Bearer …`.", examples=["tm_…"])]


class KeyList(BaseModel):
    """One's own API keys, the newest first."""

    items: list[Key]


class Ticket(BaseModel):
    """Goes into the URL of `/ws` or `/events` as `?ticket=`; good once."""

    ticket: Annotated[str, Field(examples=["XkQ2mW9c…"])]
    expires_in: Annotated[int, Field(description="Seconds.")] = 30
