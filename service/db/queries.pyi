# Made by `python -m service sql check --write` from sql/ and the migrated schema; not edited by hand.
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict

from orjson import Fragment

from service.db.pool import Database, Executor

class AccountsActiveCredentialsRow(TypedDict):
    kind: str
    id: int
    user_id: int
    role: str
    read_only: bool

class AccountsChangeRow(TypedDict):
    id: int
    username: str
    role: str
    active: bool
    created_at: datetime

class AccountsCreateRow(TypedDict):
    id: int
    username: str
    role: str
    created_at: datetime

class AccountsCreateKeyRow(TypedDict):
    id: int
    name: str
    read_only: bool
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None

class AccountsCreateTicketRow(TypedDict):
    expires_at: datetime | None

class AccountsCredentialsRow(TypedDict):
    id: int
    role: str
    active: bool
    password_hash: str

class AccountsGetRow(TypedDict):
    id: int
    username: str
    role: str
    created_at: datetime

class AccountsGetAccountRow(TypedDict):
    id: int
    username: str
    role: str
    active: bool
    created_at: datetime

class AccountsGetKeyRow(TypedDict):
    id: int
    read_only: bool
    expires_at: datetime | None
    user_id: int
    role: str

class AccountsListRow(TypedDict):
    id: int
    username: str
    role: str
    active: bool
    created_at: datetime

class _AccountsList:
    async def __call__(
        self,
        db: Executor,
        *,
        sort: Literal["-username", "username"],
        name_from: str | None,
        name_before: str | None,
        after_value: str | None,
        after_id: int | None,
        row_limit: int,
    ) -> Sequence[AccountsListRow]: ...

class AccountsListKeysRow(TypedDict):
    id: int
    name: str
    read_only: bool
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None

class AccountsOpenSessionRow(TypedDict):
    id: int

class AccountsRecentSuccessorRow(TypedDict):
    id: int
    user_id: int
    role: str
    successor: bytes

class AccountsRotateRow(TypedDict):
    id: int
    user_id: int
    role: str
    successor: bytes

class AccountsSessionsRow(TypedDict):
    id: int
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    client_address: str | None
    user_agent: str | None

class AccountsUseTicketRow(TypedDict):
    id: int
    role: str
    access_expires_at: datetime | None
    session_id: int | None
    key_id: int | None

class AnalyticsSpanRow(TypedDict):
    first_created_at: datetime | None
    present: datetime

class AnalyticsSummaryRow(TypedDict):
    by_status: Fragment
    by_user: Fragment

class AnalyticsTimeseriesRow(TypedDict):
    start: datetime
    created: int
    completed: int
    hours_to_done_p50: float | None
    hours_to_done_p90: float | None

class AttachmentsAcquireSweepLeaseRow(TypedDict):
    folder: str

class AttachmentsCheckUploadRow(TypedDict):
    folder: str
    verdict: str
    used: int

class AttachmentsClaimRemovedRow(TypedDict):
    key: str

class AttachmentsCreateRow(TypedDict):
    id: int | None
    task_id: int | None
    added_by: int | None
    key: str | None
    filename: str | None
    content_type: str | None
    size: int | None
    sha256: str | None
    created_at: datetime | None
    verdict: str
    used: int

class AttachmentsDeleteRow(TypedDict):
    verdict: str

class AttachmentsFindOrphansRow(TypedDict):
    key: str

class AttachmentsGetRow(TypedDict):
    id: int | None
    task_id: int | None
    added_by: int | None
    key: str | None
    filename: str | None
    content_type: str | None
    size: int | None
    sha256: str | None
    created_at: datetime | None
    verdict: str

class AttachmentsKeysRow(TypedDict):
    key: str
    id: int

class AttachmentsListRow(TypedDict):
    id: int | None
    task_id: int | None
    filename: str | None
    content_type: str | None
    size: int | None
    sha256: str | None
    created_at: datetime | None
    is_attachment: bool
    verdict: str

class AttachmentsRestorableRow(TypedDict):
    key: str
    is_doubtful: bool

class DbaAppliedMigrationsRow(TypedDict):
    migration_id: str

class DbaBloatRow(TypedDict):
    of_table: str
    live_rows: int
    dead_rows: int
    changed_since_analyze: int
    dead_percent: float | None
    last_vacuum_at: datetime | None
    last_analyze_at: datetime | None
    transactions_since_freeze: int
    size: str

class DbaCacheRow(TypedDict):
    of_table: str
    table_blocks_read: int
    index_blocks_read: int
    table_hit_percent: float | None
    index_hit_percent: float | None

class DbaDuplicateIndexesRow(TypedDict):
    of_table: str
    needless: str
    beside: str
    size: str

class DbaLargeTablesRow(TypedDict):
    name: str

class DbaLocksRow(TypedDict):
    waiting_pid: int
    waiting_user: str | None
    lock_mode: str
    lock_type: str
    blocking_pid: int
    blocking_user: str | None
    blocking_state: str | None
    waiting_tag: str | None
    waiting_seconds: float | None
    relation: str | None
    blocking_tag: str | None
    blocking_transaction_seconds: float | None
    waiting_query: str | None
    blocking_query: str | None

class DbaMissingIndexesRow(TypedDict):
    finding: str
    of_table: str
    column_names: str | None
    scans: int | None
    rows_read: int | None
    last_scan_at: datetime | None
    size: str

class DbaNamesRow(TypedDict):
    kind: str
    name: str
    of_table: str | None

class DbaReplicationRow(TypedDict):
    kind: str
    name: str
    state: str | None
    bytes_behind: int | None
    seconds_behind: float | None
    percent_full: float | None

class DbaRunningRow(TypedDict):
    pid: int
    user_name: str | None
    application: str | None
    client: str | None
    state: str
    wait: str | None
    running_seconds: float | None
    transaction_seconds: float | None
    blocked_by: Sequence[int]
    tag: str | None
    query: str

class DbaSizesRow(TypedDict):
    of_table: str
    estimated_rows: int
    table_bytes: int
    index_bytes: int
    other_bytes: int
    total_bytes: int
    size: str

class DbaUnusedIndexesRow(TypedDict):
    of_table: str
    index_name: str
    scans: int
    last_used_at: datetime | None
    statistics_since: datetime | None
    bytes: int
    size: str

class EventsPageRow(TypedDict):
    expired_id: int
    epoch: str
    snapshot_now: str
    newest_id: int
    newest_at: int
    is_known: bool
    id: int | None
    type: str | None
    task_id: int | None
    user_id: int | None
    previous_user_id: int | None
    actor_id: int | None
    at: datetime | None
    changes: Fragment | None
    task: Fragment | None
    xid: str | None
    status_now: str | None
    status_before: str | None
    is_event: bool
    more: bool

class EventsPositionRow(TypedDict):
    expired_id: int
    epoch: str
    snapshot_now: str
    newest_id: int
    newest_at: int

class IdempotencyClaimRow(TypedDict):
    verdict: str
    status: int | None
    headers: Fragment | None
    body: bytes | None

class TasksCreateRow(TypedDict):
    id: int
    title: str
    description: str | None
    status: str | None
    city: str | None
    weather: Fragment | None
    user_id: int
    created_at: datetime
    updated_at: datetime
    version: int

class TasksCreateManyRow(TypedDict):
    id: int
    title: str
    description: str | None
    status: str | None
    city: str | None
    weather: Fragment | None
    user_id: int
    created_at: datetime
    updated_at: datetime
    version: int

class TasksDeleteRow(TypedDict):
    verdict: str
    version: int

class TasksExportRow(TypedDict):
    id: int
    title: str
    description: str | None
    status: str | None
    city: str | None
    weather: Fragment | None
    user_id: int
    created_at: datetime
    updated_at: datetime
    version: int

class _TasksExport:
    def stream(
        self,
        db: Database,
        *,
        viewer_id: int,
        viewer_is_admin: bool,
        user_id: int | None,
        status: Sequence[str] | None,
        city: str | None,
        created_from: datetime | None,
        created_before: datetime | None,
        sought: str | None,
    ) -> AsyncGenerator[Sequence[TasksExportRow]]: ...
    async def estimate(
        self,
        db: Executor,
        *,
        viewer_id: int,
        viewer_is_admin: bool,
        user_id: int | None,
        status: Sequence[str] | None,
        city: str | None,
        created_from: datetime | None,
        created_before: datetime | None,
        sought: str | None,
    ) -> int: ...

class TasksGetRow(TypedDict):
    id: int
    title: str
    description: str | None
    status: str | None
    city: str | None
    weather: Fragment | None
    user_id: int
    created_at: datetime
    updated_at: datetime
    version: int
    verdict: str

class TasksHistoryRow(TypedDict):
    id: int | None
    type: str | None
    task_id: int | None
    user_id: int | None
    actor_id: int | None
    at: datetime | None
    changes: Fragment | None
    task: Fragment | None
    found_count: int | None
    is_event: bool
    verdict: str

class TasksListRow(TypedDict):
    id: int
    title: str
    description: str | None
    status: str | None
    city: str | None
    weather: Fragment | None
    user_id: int
    created_at: datetime
    updated_at: datetime
    version: int

class _TasksList:
    async def __call__(
        self,
        db: Executor,
        *,
        sort: Literal["-created_at", "created_at", "-updated_at", "updated_at", "-title", "title", "-status", "status", "-id", "id"],
        viewer_id: int,
        viewer_is_admin: bool,
        user_id: int | None,
        status: Sequence[str] | None,
        city: str | None,
        created_from: datetime | None,
        created_before: datetime | None,
        after_value: str | None,
        after_id: int | None,
        row_limit: int,
        row_offset: int,
    ) -> Sequence[TasksListRow]: ...

class TasksListIndexOnlyRow(TypedDict):
    id: int
    title: str
    description: str | None
    status: str | None
    city: str | None
    weather: Fragment | None
    user_id: int
    created_at: datetime
    updated_at: datetime
    version: int

class _TasksListIndexOnly:
    async def __call__(
        self,
        db: Executor,
        *,
        sort: Literal["-created_at", "created_at", "-updated_at", "updated_at", "-title", "title", "-status", "status", "-id", "id"],
        viewer_id: int,
        viewer_is_admin: bool,
        user_id: int | None,
        status: Sequence[str] | None,
        city: str | None,
        created_from: datetime | None,
        created_before: datetime | None,
        after_value: str | None,
        after_id: int | None,
        row_limit: int,
        row_offset: int,
        first_id: int | None,
        last_id: int | None,
        changed_from: datetime | None,
        changed_before: datetime | None,
    ) -> Sequence[TasksListIndexOnlyRow]: ...

class TasksListPeriodByTitleRow(TypedDict):
    id: int
    title: str
    description: str | None
    status: str | None
    city: str | None
    weather: Fragment | None
    user_id: int
    created_at: datetime
    updated_at: datetime
    version: int

class _TasksListPeriodByTitle:
    async def __call__(
        self,
        db: Executor,
        *,
        sort: Literal["-title", "title"],
        viewer_id: int,
        viewer_is_admin: bool,
        user_id: int | None,
        status: Sequence[str] | None,
        city: str | None,
        created_from: datetime | None,
        created_before: datetime | None,
        after_value: str | None,
        after_id: int | None,
        row_limit: int,
        row_offset: int,
    ) -> Sequence[TasksListPeriodByTitleRow]: ...

class TasksPeriodBoundsRow(TypedDict):
    first_id: int
    last_id: int
    changed_from: datetime
    changed_before: datetime

class TasksRestoreRow(TypedDict):
    id: int | None
    title: str | None
    description: str | None
    status: str | None
    city: str | None
    weather: Fragment | None
    user_id: int | None
    created_at: datetime | None
    updated_at: datetime | None
    version: int | None
    verdict: str

class TasksSearchRow(TypedDict):
    id: int
    title: str
    description: str | None
    status: str | None
    city: str | None
    weather: Fragment | None
    user_id: int
    created_at: datetime
    updated_at: datetime
    version: int

class _TasksSearch:
    async def __call__(
        self,
        db: Executor,
        *,
        sort: Literal["-created_at", "created_at", "-updated_at", "updated_at", "-title", "title", "-status", "status", "-id", "id"],
        viewer_id: int,
        viewer_is_admin: bool,
        user_id: int | None,
        status: Sequence[str] | None,
        city: str | None,
        created_from: datetime | None,
        created_before: datetime | None,
        after_value: str | None,
        after_id: int | None,
        row_limit: int,
        row_offset: int,
        sought: str,
        first_id: int | None,
        last_id: int | None,
        changed_from: datetime | None,
        changed_before: datetime | None,
        within_period: bool,
    ) -> Sequence[TasksSearchRow]: ...

class TasksUpdateRow(TypedDict):
    id: int
    title: str
    description: str | None
    status: str | None
    city: str | None
    weather: Fragment | None
    user_id: int
    created_at: datetime
    updated_at: datetime
    version: int
    verdict: str

class WeatherClaimRow(TypedDict):
    city: str | None

class _Accounts:
    async def active_credentials(
        self,
        db: Executor,
        *,
        session_ids: Sequence[int],
        key_ids: Sequence[int],
    ) -> Sequence[AccountsActiveCredentialsRow]: ...
    async def change(
        self,
        db: Executor,
        *,
        user_id: int,
        role: str | None,
        active: bool | None,
    ) -> AccountsChangeRow | None: ...
    async def create(
        self,
        db: Executor,
        *,
        username: str,
        password_hash: str,
        role: str,
    ) -> AccountsCreateRow: ...
    async def create_first_admin(
        self,
        db: Executor,
        *,
        username: str,
        password_hash: str,
    ) -> int: ...
    async def create_key(
        self,
        db: Executor,
        *,
        user_id: int,
        name: str,
        hash: bytes,
        read_only: bool,
        expires_at: datetime | None,
        max_keys: int,
    ) -> AccountsCreateKeyRow | None: ...
    async def create_ticket(
        self,
        db: Executor,
        *,
        hash: bytes,
        user_id: int,
        access_expires_at: datetime | None,
        session_id: int | None,
        key_id: int | None,
    ) -> AccountsCreateTicketRow: ...
    async def credentials(
        self,
        db: Executor,
        *,
        username: str,
    ) -> AccountsCredentialsRow | None: ...
    async def end_reused(
        self,
        db: Executor,
        *,
        session_id: int,
    ) -> int: ...
    async def end_session(
        self,
        db: Executor,
        *,
        session_id: int,
        user_id: int,
    ) -> int: ...
    async def expire_sessions(
        self,
        db: Executor,
        *,
        row_limit: int,
    ) -> int: ...
    async def get(
        self,
        db: Executor,
        *,
        user_id: int,
    ) -> AccountsGetRow | None: ...
    async def get_account(
        self,
        db: Executor,
        *,
        user_id: int,
    ) -> AccountsGetAccountRow | None: ...
    async def get_key(
        self,
        db: Executor,
        *,
        hash: bytes,
    ) -> AccountsGetKeyRow | None: ...
    async def has_admin(
        self,
        db: Executor,
    ) -> bool: ...
    list: _AccountsList
    async def list_keys(
        self,
        db: Executor,
        *,
        user_id: int,
        row_limit: int,
    ) -> Sequence[AccountsListKeysRow]: ...
    async def note_key_use(
        self,
        db: Executor,
        *,
        key_id: int,
    ) -> int: ...
    async def open_session(
        self,
        db: Executor,
        *,
        user_id: int,
        verified_hash: str,
        refresh_hash: bytes,
        secret: bytes,
        days: int,
        client_address: str | None,
        user_agent: str | None,
        max_sessions: int,
    ) -> AccountsOpenSessionRow | None: ...
    async def password(
        self,
        db: Executor,
        *,
        user_id: int,
    ) -> str: ...
    async def recent_successor(
        self,
        db: Executor,
        *,
        refresh_token: bytes,
        seconds: float,
    ) -> AccountsRecentSuccessorRow | None: ...
    async def revoke_key(
        self,
        db: Executor,
        *,
        key_id: int,
        user_id: int,
    ) -> int: ...
    async def rotate(
        self,
        db: Executor,
        *,
        refresh_token: bytes,
        days: int,
    ) -> AccountsRotateRow | None: ...
    async def sessions(
        self,
        db: Executor,
        *,
        user_id: int,
        row_limit: int,
    ) -> Sequence[AccountsSessionsRow]: ...
    async def set_password(
        self,
        db: Executor,
        *,
        user_id: int,
        password_hash: str,
        verified_hash: str,
        kept_session_id: int | None,
    ) -> int: ...
    async def use_ticket(
        self,
        db: Executor,
        *,
        hash: bytes,
    ) -> AccountsUseTicketRow | None: ...

class _Analytics:
    async def span(
        self,
        db: Executor,
        *,
        viewer_id: int,
        viewer_is_admin: bool,
        user_id: int | None,
    ) -> AnalyticsSpanRow: ...
    async def summary(
        self,
        db: Executor,
        *,
        viewer_id: int,
        viewer_is_admin: bool,
        user_id: int | None,
        created_from: datetime | None,
        created_before: datetime | None,
    ) -> AnalyticsSummaryRow: ...
    async def timeseries(
        self,
        db: Executor,
        *,
        viewer_id: int,
        viewer_is_admin: bool,
        user_id: int | None,
        period_from: datetime,
        period_before: datetime,
        starts: Sequence[datetime],
    ) -> Sequence[AnalyticsTimeseriesRow]: ...

class _Attachments:
    async def acquire_sweep_lease(
        self,
        db: Executor,
        *,
        seconds: float,
        holds_lease: bool,
    ) -> AttachmentsAcquireSweepLeaseRow | None: ...
    async def check_upload(
        self,
        db: Executor,
        *,
        task_id: int,
        viewer_id: int,
        viewer_is_admin: bool,
    ) -> AttachmentsCheckUploadRow | None: ...
    async def claim_removed(
        self,
        db: Executor,
        *,
        seconds: float,
        row_limit: int,
    ) -> Sequence[AttachmentsClaimRemovedRow]: ...
    async def create(
        self,
        db: Executor,
        *,
        task_id: int,
        viewer_id: int,
        viewer_is_admin: bool,
        key: str,
        filename: str,
        content_type: str,
        size: int,
        sha256: str,
        quota: int,
    ) -> AttachmentsCreateRow | None: ...
    async def delete(
        self,
        db: Executor,
        *,
        task_id: int,
        attachment_id: int,
        viewer_id: int,
        viewer_is_admin: bool,
    ) -> AttachmentsDeleteRow | None: ...
    async def find_orphans(
        self,
        db: Executor,
        *,
        keys: Sequence[str],
    ) -> Sequence[AttachmentsFindOrphansRow]: ...
    async def forget_removed(
        self,
        db: Executor,
        *,
        keys: Sequence[str],
    ) -> int: ...
    async def get(
        self,
        db: Executor,
        *,
        task_id: int,
        attachment_id: int,
        viewer_id: int,
        viewer_is_admin: bool,
    ) -> AttachmentsGetRow | None: ...
    async def keys(
        self,
        db: Executor,
        *,
        after_key: str,
        last_key: str | None,
        row_limit: int,
    ) -> Sequence[AttachmentsKeysRow]: ...
    async def list(
        self,
        db: Executor,
        *,
        task_id: int,
        viewer_id: int,
        viewer_is_admin: bool,
        after_id: int | None,
        row_limit: int,
    ) -> Sequence[AttachmentsListRow]: ...
    async def lock_quota(
        self,
        db: Executor,
        *,
        user_id: int,
    ) -> str: ...
    async def restorable(
        self,
        db: Executor,
        *,
        task_id: int,
        viewer_id: int,
        viewer_is_admin: bool,
        row_limit: int,
    ) -> Sequence[AttachmentsRestorableRow]: ...
    async def restore(
        self,
        db: Executor,
        *,
        task_id: int,
        keys: Sequence[str],
    ) -> int: ...

class _Dba:
    async def applied_migrations(
        self,
        db: Executor,
    ) -> Sequence[DbaAppliedMigrationsRow]: ...
    async def bloat(
        self,
        db: Executor,
    ) -> Sequence[DbaBloatRow]: ...
    async def cache(
        self,
        db: Executor,
    ) -> Sequence[DbaCacheRow]: ...
    async def duplicate_indexes(
        self,
        db: Executor,
    ) -> Sequence[DbaDuplicateIndexesRow]: ...
    async def generic_plans(
        self,
        db: Executor,
        *,
        name: str,
    ) -> int: ...
    async def large_tables(
        self,
        db: Executor,
        *,
        least_rows: int,
    ) -> Sequence[DbaLargeTablesRow]: ...
    async def last_task_id(
        self,
        db: Executor,
    ) -> int: ...
    async def locks(
        self,
        db: Executor,
    ) -> Sequence[DbaLocksRow]: ...
    async def missing_indexes(
        self,
        db: Executor,
    ) -> Sequence[DbaMissingIndexesRow]: ...
    async def names(
        self,
        db: Executor,
    ) -> Sequence[DbaNamesRow]: ...
    async def replication(
        self,
        db: Executor,
    ) -> Sequence[DbaReplicationRow]: ...
    async def running(
        self,
        db: Executor,
    ) -> Sequence[DbaRunningRow]: ...
    async def set_for_transaction(
        self,
        db: Executor,
        *,
        name: str,
        value: str,
    ) -> str: ...
    async def sizes(
        self,
        db: Executor,
    ) -> Sequence[DbaSizesRow]: ...
    async def slow(
        self,
        db: Executor,
    ) -> Sequence[Any]: ...
    async def statements(
        self,
        db: Executor,
    ) -> Sequence[Any]: ...
    async def unused_indexes(
        self,
        db: Executor,
    ) -> Sequence[DbaUnusedIndexesRow]: ...

class _Demo:
    async def create_tasks(
        self,
        db: Executor,
        *,
        user_ids: Sequence[int],
        titles: Sequence[str],
        descriptions: Sequence[str | None],
        statuses: Sequence[str],
        cities: Sequence[str | None],
        created_at: Sequence[datetime],
        updated_at: Sequence[datetime],
    ) -> int: ...
    async def is_empty(
        self,
        db: Executor,
    ) -> bool: ...

class _Events:
    async def expire(
        self,
        db: Executor,
        *,
        days: int,
        row_limit: int,
    ) -> int: ...
    async def has_future_xids(
        self,
        db: Executor,
    ) -> bool: ...
    async def page(
        self,
        db: Executor,
        *,
        viewer_id: int,
        viewer_is_admin: bool,
        seen_snapshot: str,
        seen_id: int,
        batch_snapshot: str | None,
        batch_id: int | None,
        after_id: int,
        row_limit: int,
        byte_limit: int,
        newest_at: int,
    ) -> Sequence[EventsPageRow]: ...
    async def position(
        self,
        db: Executor,
    ) -> EventsPositionRow: ...
    async def repair_future_xids(
        self,
        db: Executor,
        *,
        row_limit: int,
    ) -> int: ...

class _Idempotency:
    async def claim(
        self,
        db: Executor,
        *,
        user_id: int,
        route: str,
        key: str,
        fingerprint: bytes,
        holder: bytes,
        seconds: float,
    ) -> IdempotencyClaimRow | None: ...
    async def expire(
        self,
        db: Executor,
        *,
        row_limit: int,
    ) -> int: ...
    async def release(
        self,
        db: Executor,
        *,
        user_id: int,
        route: str,
        key: str,
        holder: bytes,
    ) -> int: ...
    async def save_response(
        self,
        db: Executor,
        *,
        user_id: int,
        route: str,
        key: str,
        holder: bytes,
        status: int,
        headers: Fragment,
        body: bytes,
    ) -> int: ...

class _Tasks:
    async def count(
        self,
        db: Executor,
        *,
        viewer_id: int,
        viewer_is_admin: bool,
        user_id: int | None,
        status: Sequence[str] | None,
        city: str | None,
        created_from: datetime | None,
        created_before: datetime | None,
        sought: str | None,
    ) -> int: ...
    async def create(
        self,
        db: Executor,
        *,
        user_id: int,
        title: str,
        description: str | None,
        status: str,
        city: str | None,
        weather: Fragment | None,
    ) -> TasksCreateRow: ...
    async def create_many(
        self,
        db: Executor,
        *,
        user_id: int,
        titles: Sequence[str],
        descriptions: Sequence[str | None],
        statuses: Sequence[str],
        cities: Sequence[str | None],
        weathers: Sequence[Fragment | None],
    ) -> Sequence[TasksCreateManyRow]: ...
    async def delete(
        self,
        db: Executor,
        *,
        task_id: int,
        viewer_id: int,
        viewer_is_admin: bool,
        expected_versions: Sequence[int] | None,
    ) -> TasksDeleteRow | None: ...
    export: _TasksExport
    async def get(
        self,
        db: Executor,
        *,
        task_id: int,
        viewer_id: int,
        viewer_is_admin: bool,
    ) -> TasksGetRow | None: ...
    async def history(
        self,
        db: Executor,
        *,
        task_id: int,
        viewer_id: int,
        viewer_is_admin: bool,
        before_id: int | None,
        row_limit: int,
        byte_limit: int,
    ) -> Sequence[TasksHistoryRow]: ...
    list: _TasksList
    list_index_only: _TasksListIndexOnly
    list_period_by_title: _TasksListPeriodByTitle
    async def lock_restoration(
        self,
        db: Executor,
        *,
        task_id: int,
    ) -> str: ...
    async def period_bounds(
        self,
        db: Executor,
        *,
        created_from: datetime | None,
        created_before: datetime | None,
    ) -> TasksPeriodBoundsRow: ...
    async def period_fraction(
        self,
        db: Executor,
        *,
        created_from: datetime | None,
        created_before: datetime | None,
    ) -> float | None: ...
    async def restore(
        self,
        db: Executor,
        *,
        task_id: int,
        viewer_id: int,
        viewer_is_admin: bool,
    ) -> TasksRestoreRow | None: ...
    search: _TasksSearch
    async def update(
        self,
        db: Executor,
        *,
        task_id: int,
        viewer_id: int,
        viewer_is_admin: bool,
        expected_versions: Sequence[int] | None,
        set_title: bool,
        title: str | None,
        set_description: bool,
        description: str | None,
        set_status: bool,
        status: str | None,
        set_city: bool,
        city: str | None,
        weather: Fragment | None,
    ) -> TasksUpdateRow | None: ...

class _Weather:
    async def claim(
        self,
        db: Executor,
        *,
        seconds: float,
        row_limit: int,
    ) -> Sequence[WeatherClaimRow]: ...
    async def fill(
        self,
        db: Executor,
        *,
        city: str,
        weather: Fragment | None,
        row_limit: int,
    ) -> int: ...

class _Queries:
    accounts: _Accounts
    analytics: _Analytics
    attachments: _Attachments
    dba: _Dba
    demo: _Demo
    events: _Events
    idempotency: _Idempotency
    tasks: _Tasks
    weather: _Weather

q: _Queries
