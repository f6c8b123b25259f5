-- transactional: false
--
-- Nothing to undo: the release before looks the cities up again as well.

set lock_timeout = '5s';
