set local lock_timeout = '5s';
set local statement_timeout = '60s';
drop trigger attachments_leave_file on attachments;
drop function attachments_leave_file();
drop table removed_attachments;
