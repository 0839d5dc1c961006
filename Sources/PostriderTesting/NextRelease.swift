/// What a later release's migrations may do to a database under the feet of this one.
public enum NextRelease {
  /// A migration that only adds: a column to every table, a table of tenants, an index, a function.
  public static let expansion = """
    DO $$
    DECLARE
      each record;
    BEGIN
      FOR each IN SELECT c.oid::regclass AS name FROM pg_class c
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
          AND c.relname <> 'schema_migration' ORDER BY c.relname
      LOOP
        EXECUTE format('ALTER TABLE %s ADD COLUMN next_release text NOT NULL DEFAULT ''next''', each.name);
      END LOOP;
    END
    $$;
    CREATE TABLE next_release (
      mailbox_id bigint PRIMARY KEY,
      organization_id bigint NOT NULL,
      FOREIGN KEY (organization_id, mailbox_id) REFERENCES mailbox (organization_id, id) ON DELETE CASCADE
    );
    SELECT protect_tenant_table('next_release');
    CREATE INDEX mailbox_next_release ON mailbox (next_release);
    CREATE FUNCTION next_release() RETURNS int LANGUAGE sql AS 'SELECT 1';
    GRANT SELECT, INSERT ON next_release TO postrider_api, postrider_worker;
    """

  /// One that takes a column away which this release reads.
  public static let contraction = "ALTER TABLE mailbox RENAME COLUMN user_name TO login_name;"
}
