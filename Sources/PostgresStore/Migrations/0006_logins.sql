-- One account for many mailboxes, and access tokens. Only adds: the previous release neither reads nor writes any of it.

-- How the account of the profile opens the maildrop of each mailbox: `authzid`, or a template such as {mailbox}*{user}.
-- NULL: the account opens its own, so only one mailbox can use it.
ALTER TABLE server_profile ADD COLUMN incoming_login_as text CHECK (char_length(incoming_login_as) BETWEEN 1 AND 250);

CREATE INDEX mailbox_maildrop ON mailbox (profile_id, lower(coalesce(user_name, address)));

-- Two mailboxes never open the same maildrop through one account, whoever writes them. The profile's row is locked, so of
-- two that come at once the second sees the first.
CREATE FUNCTION check_delegation() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  login_as text;
BEGIN
  IF NEW.profile_id IS NULL OR NEW.incoming_method = 'none' THEN RETURN NEW; END IF;
  SELECT p.incoming_login_as INTO login_as FROM server_profile p
    WHERE p.id = NEW.profile_id AND p.incoming_credentials = 'profile' FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN NEW; END IF;
  IF login_as IS NULL THEN
    IF EXISTS (SELECT FROM mailbox m WHERE m.profile_id = NEW.profile_id AND m.incoming_method <> 'none' AND m.id <> NEW.id)
    THEN
      RAISE EXCEPTION 'the account of profile % opens one maildrop only', NEW.profile_id
        USING ERRCODE = 'unique_violation', CONSTRAINT = 'mailbox_delegation';
    END IF;
  ELSIF EXISTS (
    SELECT FROM mailbox m WHERE m.profile_id = NEW.profile_id AND m.incoming_method <> 'none' AND m.id <> NEW.id
      AND lower(coalesce(m.user_name, m.address)) = lower(coalesce(NEW.user_name, NEW.address)))
  THEN
    RAISE EXCEPTION 'another mailbox of profile % opens this maildrop', NEW.profile_id
      USING ERRCODE = 'unique_violation', CONSTRAINT = 'mailbox_maildrop_taken';
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER mailbox_delegation BEFORE INSERT OR UPDATE OF profile_id, incoming_method, user_name, address ON mailbox
  FOR EACH ROW EXECUTE FUNCTION check_delegation();

CREATE FUNCTION check_profile_delegation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.incoming_credentials = 'profile' AND NEW.incoming_login_as IS NULL
    AND (SELECT count(*) FROM mailbox m WHERE m.profile_id = NEW.id AND m.incoming_method <> 'none') > 1
  THEN
    RAISE EXCEPTION 'several mailboxes use the account of profile %', NEW.id
      USING ERRCODE = 'unique_violation', CONSTRAINT = 'mailbox_delegation';
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER profile_delegation BEFORE UPDATE OF incoming_credentials, incoming_login_as ON server_profile
  FOR EACH ROW EXECUTE FUNCTION check_profile_delegation();

-- What was saved before the rule: nobody knows whose mail such an account would fetch.
UPDATE mailbox SET incoming_status = 'failure', incoming_enabled = false, incoming_failure_code = 'profile.no-delegation',
  incoming_failed_at = now(), version = version + 1
WHERE incoming_method <> 'none' AND profile_id IN (
  SELECT m.profile_id FROM mailbox m JOIN server_profile p ON p.id = m.profile_id
  WHERE p.incoming_credentials = 'profile' AND m.incoming_method <> 'none'
  GROUP BY m.profile_id HAVING count(*) > 1);
SELECT announce_jobs(ARRAY(SELECT job FROM refresh_may_run(ARRAY(
  SELECT id FROM mailbox WHERE incoming_failure_code = 'profile.no-delegation'))));

-- An OAuth grant of a mailbox. The token is encrypted by the application, as passwords are.
CREATE TABLE oauth_grant (
  mailbox_id bigint PRIMARY KEY,
  organization_id bigint NOT NULL,
  access_token bytea NOT NULL,
  expires_at timestamptz NOT NULL,
  FOREIGN KEY (organization_id, mailbox_id) REFERENCES mailbox (organization_id, id) ON DELETE CASCADE
);
SELECT protect_tenant_table('oauth_grant');
GRANT SELECT, INSERT, UPDATE, DELETE ON oauth_grant TO postrider_api;
GRANT SELECT ON oauth_grant TO postrider_worker;
