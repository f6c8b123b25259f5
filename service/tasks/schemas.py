"""What clients send and get about tasks."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service.core.validation import AS_DIGITS, VISIBLE, Id, Input, Period, Text, not_blank

Status = Literal["todo", "in_progress", "done"]
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
City = Annotated[Text | None, Field(max_length=100, examples=["Moscow"], description="Where the weather is looked up.")]


class NewTask(Input):
    """A task to be created; as the body of PUT it replaces all of these fields, and what is absent is cleared."""

    title: Title
    description: Description = None
    status: Status = "todo"
    city: City = None


class TaskPatch(Input):
    """A merge patch (RFC 7396): absent is unchanged, null is cleared."""

    title: Title = Field(default_factory=str)
    description: Description = Field(default_factory=lambda: None)
    status: Status = Field(default_factory=lambda: "todo")
    city: City = Field(default_factory=lambda: None)


class TaskWeather(BaseModel):
    """The weather in the task's city, set by the service alone."""

    model_config = ConfigDict(extra="allow")

    temperature: Annotated[float, Field(description="°C", examples=[15.5])]
    condition: Annotated[str, Field(examples=["Clouds"])]
    humidity: Annotated[float | None, Field(description="%", examples=[81])] = None
    wind_speed: Annotated[float | None, Field(description="m/s", examples=[4.1])] = None
    observed_at: datetime | None = None


class Task(NewTask):
    """A task."""

    model_config = ConfigDict(extra="ignore")

    id: int
    weather: TaskWeather | None
    user_id: int
    created_at: datetime
    updated_at: datetime
    version: Annotated[int, Field(description="Moved on by every change; the entity tag.")]


class TaskPage(BaseModel):
    """A page of tasks."""

    items: list[Task]
    next_cursor: Annotated[str | None, Field(description="Gives the next page; null on the last one.")]
    total: Annotated[int | None, Field(description="How many there are on all pages; null unless `count` asks for it.")]


class TaskFilters(Period):
    """Which tasks."""

    status: Annotated[list[Status] | None, Field(description="Repeatable.")] = None
    user_id: Annotated[Id | None, Field(description="Another's, asked by a user: 403.")] = None
    city: Annotated[Text | None, Field(max_length=100, description="As it is written in the task.")] = None
    q: Annotated[
        Text | None,
        Field(
            max_length=10_000,
            description=(
                'Words of title and description: all of them, `"a phrase"`, `or`, `-not`; English by stems. '
                "The first 32 words count."
            ),
            examples=["monthly reports"],
        ),
    ] = None


class TaskQuery(TaskFilters):
    """Filters, order and page of a list of tasks."""

    sort: Annotated[Sort, Field(description="`-` first: descending.")] = "-created_at"
    limit: Annotated[int, Field(ge=1, le=100, description="Of a page."), AS_DIGITS] = 20
    cursor: Annotated[str | None, Field(max_length=2000, description="`next_cursor` of the page before.")] = None
    offset: Annotated[
        int | None, Field(ge=0, le=10_000, description="Rows to skip; not together with `cursor`."), AS_DIGITS
    ] = None
    count: Annotated[Count, Field(description="Whether `total` is counted, estimated by the planner, or left out.")] = (
        "none"
    )


class ExportQuery(TaskFilters):
    """Filters and form of an export."""

    format: Annotated[Literal["ndjson", "csv"], Field(description="A JSON object, or a row, in each line.")] = "ndjson"
