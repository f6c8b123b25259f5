-- Lock a user's quota until the transaction ends.
-- returns: value
-- params: user_id bigint
-- why: a statement of its own, so that what uses the quota then sees what the one before has used.
select pg_advisory_xact_lock(hashtextextended('attachments.quota', $1))::text as turn;
