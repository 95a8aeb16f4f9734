DROP TABLE bulk_delete_mail;
DROP INDEX bulk_delete_history;
DROP INDEX bulk_delete_ended;
