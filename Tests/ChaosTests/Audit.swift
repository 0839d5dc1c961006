/// What the suite adds to its database: a record of every outcome as it is written, and more work than there are slots.
enum Audit {
  /// Each outcome with the highest fence that had been written before, and due times that come again at once.
  static let schema = """
    CREATE SCHEMA chaos;
    CREATE TABLE chaos.fence (mailbox_id bigint, kind text, generation bigint, fence bigint NOT NULL,
      PRIMARY KEY (mailbox_id, kind, generation));
    CREATE TABLE chaos.outcome (job text, fence bigint, earlier bigint, at double precision);
    CREATE TABLE chaos.pace (seconds double precision NOT NULL);
    INSERT INTO chaos.pace VALUES (1.2);
    CREATE FUNCTION chaos.audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    DECLARE
      highest bigint;
    BEGIN
      IF NEW.last_run_id IS DISTINCT FROM OLD.last_run_id THEN
        SELECT f.fence INTO highest FROM chaos.fence f
          WHERE f.mailbox_id = NEW.mailbox_id AND f.kind = NEW.kind AND f.generation = NEW.generation;
        INSERT INTO chaos.outcome VALUES (NEW.mailbox_id || NEW.kind, NEW.last_fence, highest,
          extract(epoch FROM clock_timestamp()));
        INSERT INTO chaos.fence AS f VALUES (NEW.mailbox_id, NEW.kind, NEW.generation, NEW.last_fence)
          ON CONFLICT (mailbox_id, kind, generation) DO UPDATE SET fence = greatest(f.fence, EXCLUDED.fence);
        IF NEW.kind = 'p' AND NEW.next_due_at IS NOT NULL THEN
          NEW.next_due_at := least(NEW.next_due_at,
            clock_timestamp() + (SELECT seconds FROM chaos.pace) * interval '1 second');
        END IF;
      END IF;
      RETURN NEW;
    END
    $$;
    CREATE TRIGGER chaos_audit BEFORE UPDATE ON mailbox_schedule FOR EACH ROW EXECUTE FUNCTION chaos.audit();
    """

  /// The mistake ``Mistake/fenceIgnored``: the guard compares with 0 and lets everybody write.
  static let blindGuard = """
    CREATE FUNCTION chaos.blind() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      NEW.last_fence := 0;
      RETURN NEW;
    END
    $$;
    CREATE TRIGGER chaos_blind BEFORE UPDATE ON mailbox_schedule FOR EACH ROW EXECUTE FUNCTION chaos.blind();
    """

  /// Outcomes of sessions that a newer one had overtaken.
  static let staleWrites = "SELECT job, fence, earlier FROM chaos.outcome WHERE earlier >= fence LIMIT 1000"

  /// Every outcome: job, fence, when.
  static let outcomes = "SELECT job, fence, at FROM chaos.outcome"

  /// Every stored message with the SHA-256 of its octets.
  static let stored = """
    SELECT m.address, e.uidl, encode(sha256(string_agg(c.octets, ''::bytea ORDER BY c.position)), 'hex')
    FROM email e JOIN mailbox m ON m.id = e.mailbox_id JOIN content_chunk c ON c.content_id = e.raw_content_id
    GROUP BY e.id, m.address, e.uidl
    """

  /// Mailboxes without a successful poll that began after a moment (seconds since 1970).
  static func notPolled(since seconds: Double) -> String {
    """
    SELECT m.id FROM mailbox m WHERE NOT EXISTS (SELECT FROM run r WHERE r.mailbox_id = m.id AND r.kind = 'p'
      AND r.started_at > to_timestamp(\(seconds)) AND r.result = 'success')
    """
  }
}
