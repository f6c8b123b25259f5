"""The request bodies, parameters and responses of accounts, log-in sessions, API keys and tickets."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from service.core.pagination import NextCursor, PageCursor, PageLimit
from service.core.validation import ALWAYS_SENT, VISIBLE, Future, Input, Text, not_blank

USERNAME = r"^[A-Za-z0-9._-]{3,50}$"
PASSWORD_LENGTH = range(8, 257)
MAX_DECOMPOSED_CHARACTERS = 4 * PASSWORD_LENGTH[-1]


def normalize_password(password: str) -> str:
    """Return the NFC form, whose characters count, or a far too long text as it is: normalizing it would be slow."""
    return unicodedata.normalize("NFC", password) if len(password) <= MAX_DECOMPOSED_CHARACTERS else password


Role = Literal["user", "admin"]
NormalizedText = Annotated[Text, AfterValidator(normalize_password)]
Password = Annotated[NormalizedText, Field(min_length=PASSWORD_LENGTH[0], max_length=PASSWORD_LENGTH[-1])]
AnyPassword = Annotated[
    NormalizedText, Field(max_length=PASSWORD_LENGTH[-1], examples=["correct horse battery staple"])
]


class Registration(Input):
    """A new account."""

    username: Annotated[str, Field(pattern=USERNAME, description="Unique without regard to case.", examples=["ada"])]
    password: Annotated[Password, Field(description="Any script.", examples=["correct horse battery staple"])]
    role: Annotated[Role, Field(description="Only an administrator may set `admin`. The default is `user`.")] = "user"


class PasswordChange(Input):
    """A new password, confirmed by the current one."""

    current_password: AnyPassword
    new_password: Annotated[Password, Field(examples=["another horse, another staple"])]


class AccountChange(Input):
    """A change of an account's role or activity; an absent member stays unchanged."""

    role: Role = Field(default_factory=lambda: "user")
    active: bool = Field(default_factory=lambda: True, strict=True, examples=[False])


class UserListParams(Input):
    """The filter, order and page of a list of accounts."""

    q: Annotated[str | None, Field(max_length=50, pattern="^[A-Za-z0-9._-]*$", description="A prefix of names.")] = None
    sort: Annotated[Literal["username", "-username"], Field(description="`-` first: descending.")] = "username"
    limit: PageLimit = 20
    cursor: PageCursor = None


class Account(BaseModel):
    """An account."""

    id: int
    username: Annotated[str, Field(examples=["ada"])]
    role: Role
    created_at: datetime


class Member(Account):
    """An account and whether it is active."""

    active: Annotated[
        bool, Field(description="An inactive account cannot log in, and its sessions, keys and tickets are not valid.")
    ]


class MemberPage(BaseModel):
    """A page of accounts."""

    items: list[Member]
    next_cursor: NextCursor


class Credentials(Input):
    """The username and password of an account."""

    username: Annotated[Text, Field(max_length=256, examples=["ada"])]
    password: AnyPassword


class Refresh(Input):
    """A refresh token to exchange for new tokens."""

    refresh_token: Annotated[Text, Field(max_length=200, examples=["AAAAAAAAAAE…"])]


class Token(BaseModel):
    """An access token, sent as `Authorization: Bearer …`, and the refresh token for the next one."""

    model_config = ALWAYS_SENT

    access_token: Annotated[str, Field(examples=["eyJhbGciOiJIUzI1NiIs…"])]
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - RFC 6750's word
    expires_in: Annotated[int, Field(description="The access token's lifetime in seconds.", examples=[900])]
    refresh_token: Annotated[
        str,
        Field(description="Valid once: `POST /auth/refresh` returns its successor.", examples=["AAAAAAAAAAE…"]),
    ]


class Session(BaseModel):
    """An active log-in session."""

    id: int
    created_at: datetime
    last_used_at: Annotated[datetime, Field(description="When its refresh token was last used.")]
    expires_at: datetime
    client_address: Annotated[str | None, Field(examples=["203.0.113.7"])]
    user_agent: Annotated[str | None, Field(examples=["Mozilla/5.0 (X11; Linux x86_64)"])]
    current: Annotated[bool, Field(description="Whether this request belongs to the session.")]


class SessionList(BaseModel):
    """A user's own active sessions, the newest first."""

    items: list[Session]


class NewKey(Input):
    """A new API key."""

    name: Annotated[
        Text, Field(min_length=1, max_length=100, examples=["nightly report"]), AfterValidator(not_blank), VISIBLE
    ]
    expires_at: Annotated[
        Future | None,
        Field(description="A key without one, or with null, does not expire.", examples=["2030-01-01T00:00:00Z"]),
    ] = None
    read_only: Annotated[
        bool, Field(strict=True, description="Whether the key may only read. The default is false.", examples=[True])
    ] = False


class Key(BaseModel):
    """An API key, without the key itself."""

    id: int
    name: Annotated[str, Field(examples=["nightly report"])]
    read_only: bool
    created_at: datetime
    expires_at: datetime | None
    last_used_at: Annotated[
        datetime | None,
        Field(description="The last use, written at most once an hour. Null if the key was never used."),
    ]


class MadeKey(Key):
    """A new API key with the key itself, which no later response contains."""

    key: Annotated[str, Field(description="Sent as `Authorization: Bearer …`.", examples=["tm_…"])]


class KeyList(BaseModel):
    """A user's own API keys, the newest first."""

    items: list[Key]


class Ticket(BaseModel):
    """A ticket, valid once, for the URL of `/ws` or `/events`: `?ticket=…`."""

    model_config = ALWAYS_SENT

    ticket: Annotated[str, Field(examples=["XkQ2mW9c…"])]
    expires_in: Annotated[int, Field(description="The ticket's lifetime in seconds.", examples=[30])] = 30
