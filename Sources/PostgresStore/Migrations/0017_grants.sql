-- To which servers the refresh token of a grant may be shown. Only adds: the previous release does not look, and what it
-- stores is marked as well.

-- Scheme, host and port of a stored address, which is written in lower case and without the scheme's own port.
CREATE FUNCTION web_origin(url text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT substring(url FROM '^[a-z]+://[^/?]+')
$$;

-- token_origin: of the token URL at which the owner consented; NULL: nobody knows any more, so it is shown to no one.
-- revocation_origin: of the revocation URL of that time, or of the token URL where there was none.
ALTER TABLE oauth_grant ADD COLUMN token_origin text, ADD COLUMN revocation_origin text;

-- Where the application has been removed meanwhile, the owner consents again once there is another one.
ALTER TABLE oauth_grant NO FORCE ROW LEVEL SECURITY;
ALTER TABLE oauth_client NO FORCE ROW LEVEL SECURITY;
UPDATE oauth_grant g SET token_origin = web_origin(c.token_url),
  revocation_origin = web_origin(coalesce(c.revocation_url, c.token_url))
FROM oauth_client c WHERE c.profile_id = g.profile_id AND g.granted_at IS NOT NULL;
ALTER TABLE oauth_client FORCE ROW LEVEL SECURITY;
ALTER TABLE oauth_grant FORCE ROW LEVEL SECURITY;

-- Every consent notes them, whichever release stores it; a refresh does not.
CREATE FUNCTION note_grant_origins() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  SELECT web_origin(c.token_url), web_origin(coalesce(c.revocation_url, c.token_url))
    INTO NEW.token_origin, NEW.revocation_origin FROM oauth_client c WHERE c.profile_id = NEW.profile_id;
  RETURN NEW;
END
$$;
CREATE TRIGGER grant_origins BEFORE INSERT OR UPDATE OF granted_at ON oauth_grant
  FOR EACH ROW EXECUTE FUNCTION note_grant_origins();

-- The application that a consent under way was begun with; NULL: by the previous release.
ALTER TABLE oauth_consent ADD COLUMN client_id text, ADD COLUMN token_url text;
