-- How many logins at a server of the profile may fail within 10 minutes. Only adds: the previous release keeps to 10.

ALTER TABLE server_profile ADD COLUMN maximum_failed_logins int NOT NULL DEFAULT 10
  CHECK (maximum_failed_logins BETWEEN 1 AND 1000);
