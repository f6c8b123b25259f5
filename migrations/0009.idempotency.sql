-- What was answered to a request with an Idempotency-Key, so that the same request again is answered so, and not carried
-- out twice.
--
-- Locks: `share row exclusive` on users for the moment in which the foreign key is made.

set local lock_timeout = '5s';
set local statement_timeout = '60s';

create table idempotency_keys (
    user_id bigint not null,
    route text collate "C" not null,
    key text collate "C" not null,
    fingerprint bytea not null,
    holder bytea not null,
    claimed_at timestamptz not null default now(),
    claimed_until timestamptz not null,
    status bigint,
    headers json,
    body bytea,
    constraint idempotency_keys_pkey primary key (user_id, route, key),
    constraint idempotency_keys_user_id_fkey foreign key (user_id) references users (id) on delete cascade,
    constraint idempotency_keys_key_check check (key ~ '^[\x21-\x7e]{1,255}$'),
    constraint idempotency_keys_status_headers_body_check check (num_nonnulls(status, headers, body) in (0, 3))
);

comment on table idempotency_keys is 'Requests with an Idempotency-Key, kept for 24 hours: running ones, and answers.';
comment on column idempotency_keys.fingerprint is 'SHA-256 over the body: with another one the key is refused.';
comment on column idempotency_keys.holder is 'Which attempt may write the answer: that which claimed the key last.';
comment on column idempotency_keys.claimed_until is 'Where there is no answer then, the attempt has died: another takes over.';
comment on column idempotency_keys.status is 'The answer, written in the transaction of what it speaks of; null before.';
create index idempotency_keys_claimed_idx on idempotency_keys (claimed_at);
