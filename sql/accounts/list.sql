-- List a page of accounts, for administrators.
-- returns: rows
-- params: name_from text?, name_before text?, after_value text?, after_id bigint?, row_limit bigint
-- sort: username: lower(a.username) text, a.id bigint
-- index: users_username_key
select a.*
from account_view as a
where
    ($1::text is null or lower(a.username) >= $1)
    and ($2::text is null or lower(a.username) < $2)
    and /* after */ ($4::bigint is null or (lower(a.username), a.id, 1) <= ($3::text::text, $4::bigint, 0))
order by /* sort */ lower(a.username) desc, a.id desc
limit $5;
