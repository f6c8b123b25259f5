"""The request bodies, parameters and responses of tasks."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from service.core.pagination import NextCursor, PageCursor, PageLimit
from service.core.validation import AS_DIGITS, VISIBLE, Id, Input, Period, Text, not_blank

Status = Literal["todo", "in_progress", "done"]
"""The statuses. A new one also changes `tasks_status_check` (a migration), its text in `db/errors.py`, the counts in
`sql/analytics/summary.sql` (whose `done` is the rest) and `analytics/schemas.py`, the seed in `sql/plans/seed.sql`, and
`cli/demo.py`."""
Count = Literal["none", "exact", "estimated"]
Sort = Literal[
    "created_at",
    "-created_at",
    "updated_at",
    "-updated_at",
    "title",
    "-title",
    "status",
    "-status",
    "id",
    "-id",
]
Title = Annotated[
    Text, Field(min_length=1, max_length=100, examples=["Prepare Report"]), AfterValidator(not_blank), VISIBLE
]
Description = Annotated[Text | None, Field(max_length=10_000, examples=["Collect monthly data"])]
City = Annotated[
    Text | None, Field(max_length=100, examples=["Moscow"], description="The place whose weather is shown.")
]


class NewTask(Input):
    """The members of a task that a client sets."""

    title: Title
    description: Description = None
    status: Annotated[Status, Field(description="A task without one is `todo`.")] = "todo"
    city: City = None


class TaskPatch(Input):
    """A merge patch (RFC 7396): an absent member stays unchanged, and null clears a member."""

    title: Title = Field(default_factory=str)
    description: Description = Field(default_factory=lambda: None)
    status: Status = Field(default_factory=lambda: "todo")
    city: City = Field(default_factory=lambda: None)


class TaskWeather(BaseModel):
    """The weather in the city of a task. Only the service sets it."""

    model_config = ConfigDict(extra="allow")

    temperature: Annotated[float, Field(description="°C", examples=[15.5])]
    condition: Annotated[str | None, Field(examples=["Clouds"])] = None
    humidity: Annotated[float | None, Field(description="%", examples=[81])] = None
    wind_speed: Annotated[float | None, Field(description="m/s", examples=[4.1])] = None
    observed_at: datetime | None = None


class Task(NewTask):
    """A task."""

    model_config = ConfigDict(extra="ignore", json_schema_serialization_defaults_required=True)

    id: int
    weather: Annotated[TaskWeather | None, Field(description="Null until the service has it, or without a city.")]
    user_id: Annotated[int, Field(description="The owner.")]
    created_at: datetime
    updated_at: datetime
    version: Annotated[int, Field(description="A number that every change increases. It is the entity tag.")]


class TaskPage(BaseModel):
    """A page of tasks."""

    items: list[Task]
    next_cursor: NextCursor
    total: Annotated[
        int | None,
        Field(description="The number of tasks on all pages; null unless `count` asks for it.", examples=[1]),
    ]


class TaskFilters(Period):
    """The filters of a list of tasks."""

    status: Annotated[list[Status] | None, Field(description="Repeatable.")] = None
    user_id: Annotated[Id | None, Field(description="The owner. A user may name only their own id (else 403).")] = None
    city: Annotated[Text | None, Field(max_length=100, description="The task's city, spelled the same.")] = None
    q: Annotated[
        Text | None,
        Field(
            max_length=10_000,
            description=(
                'The words to search in title and description: all of them, `"a phrase"`, `or`, `-not`. '
                "English words match by stem. The first 32 words count."
            ),
            examples=["monthly reports"],
        ),
    ] = None


class TaskListParams(TaskFilters):
    """The filters, order and page of a list of tasks."""

    sort: Annotated[Sort, Field(description="`-` first: descending.")] = "-created_at"
    limit: PageLimit = 20
    cursor: PageCursor = None
    offset: Annotated[
        int | None,
        Field(ge=0, le=10_000, description="The number of tasks to skip; not together with `cursor`."),
        AS_DIGITS,
    ] = None
    count: Annotated[Count, Field(description="Whether `total` is counted, estimated by the planner, or null.")] = (
        "none"
    )


class ExportParams(TaskFilters):
    """The filters and format of an export."""

    format: Annotated[Literal["ndjson", "csv"], Field(description="One JSON object or CSV row per line.")] = "ndjson"
    bom: Annotated[
        bool, Field(description="Whether a CSV file begins with a byte order mark, by which Excel recognizes UTF-8.")
    ] = False

    @field_validator("bom")
    @classmethod
    def _check_bom(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("format") != "csv":
            raise ValueError("Input should be false unless the format is csv")
        return value
