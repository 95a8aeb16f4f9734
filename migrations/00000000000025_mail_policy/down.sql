ALTER TABLE bulk_delete_mail DROP COLUMN reason, DROP COLUMN admitted_at;
ALTER TABLE removal_policy DROP COLUMN mail_domains;
