import Foundation
import Logging
import PostgresStore
import PostriderCore

extension Doctor {
  /// Above this sessions wait for their outcomes, in seconds.
  static let slowDatabase = 0.02

  // MARK: PostgreSQL

  /// Reachability, schema, rights, settings, announcements.
  func postgresql() async -> [Finding] {
    guard let url = settings.text(.databaseURL) else { return [.skipped(.postgresql, "PostgreSQL is not configured")] }
    let examination = DatabaseExamination(url: url)
    var findings = await schema(url)
    if let facts = self.findings.database { findings += Self.findings(facts, poolSize: settings.number(.databasePool)) }
    if findings.contains(where: { $0.level == .error }) && self.findings.database == nil { return findings }
    if self.findings.hasSchema { findings += await rights(examination) }
    findings += await announcements(examination)
    findings += await migrating(url)
    await examination.close()
    return findings
  }

  /// Whether the store can work: reached, group roles, schema version.
  private func schema(_ url: String) async -> [Finding] {
    let store = PostgresStore(
      configuration: PostgresStoreConfiguration(url: url, poolSize: 1, applicationName: "postrider doctor"),
      logger: Logger(label: "postrider.doctor"))
    let finding: Finding
    do {
      try await store.checkHealth()
      keep { $0.hasSchema = true }
      finding = .ok(.postgresql, "the schema fits this program, and the login role may act as the database roles")
    } catch {
      let remedy =
        if case .unavailable? = error as? StoreError {
          "Check that the server runs and that \(Setting.databaseURL.environmentName) names it, with its port, user, "
            + "password and sslmode, from where this process runs."
        } else {
          "Run `postrider migrate` with the URL of the schema's owner in "
            + "\(Setting.databaseMigrateURL.environmentName), or use the release that the schema belongs to."
        }
      finding = .error(.postgresql, Self.words(error), remedy)
    }
    await store.close()
    return [finding]
  }

  private func rights(_ examination: DatabaseExamination) async -> [Finding] {
    do {
      let missing = try await examination.missingRights()
      let open = try await examination.unprotectedTables()
      var findings: [Finding] = []
      if missing.isEmpty {
        findings.append(.ok(.postgresql, "the database roles have every right that the migrations give"))
      } else {
        let shown = missing.prefix(5).joined(separator: ", ") + (missing.count > 5 ? ", …" : "")
        findings.append(
          .error(
            .postgresql, "\(Words.count(missing.count, "right")) missing: \(shown)",
            "Somebody took them away: GRANT them again as the owner of the schema, each as it is written here."))
      }
      if !open.isEmpty {
        findings.append(
          .error(
            .postgresql, "organizations are not kept apart in \(open.joined(separator: ", "))",
            "Row-level security was switched off there: ALTER TABLE … ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL "
              + "SECURITY, as the owner of the schema."))
      }
      return findings
    } catch {
      return [.error(.postgresql, "the rights cannot be read: \(Self.words(error))", "Look at the server's log.")]
    }
  }

  /// What the server's facts mean.
  static func findings(_ facts: DatabaseFacts, poolSize: Int) -> [Finding] {
    var findings: [Finding] = []
    if facts.isReadOnly {
      findings.append(
        .error(
          .postgresql, "the server takes no writes: it is a standby, or read-only",
          "Name every host in the URL and add target_session_attrs=read-write, so that the primary is found."))
    }
    if facts.encoding != "UTF8" {
      findings.append(
        .error(
          .postgresql, "the database's encoding is \(facts.encoding), which cannot hold every message",
          "Create the database again with ENCODING 'UTF8' TEMPLATE template0."))
    }
    if facts.isSuperuser || facts.bypassesRowSecurity {
      let kind = facts.isSuperuser ? "superuser" : "role with BYPASSRLS"
      findings.append(
        .warning(
          .postgresql, "the processes log in as \(facts.user), a \(kind)",
          "Name a role of their own in \(Setting.databaseURL.environmentName) and the owner of the schema in "
            + "\(Setting.databaseMigrateURL.environmentName); `postrider migrate` creates the role."))
    }
    findings += durability(facts)
    let free = facts.maximumConnections - facts.connections
    let text = "\(facts.connections) of \(facts.maximumConnections) connections are in use"
    findings.append(
      free >= poolSize + 1
        ? .ok(.postgresql, text)
        : .warning(
          .postgresql, "\(text); a process takes up to \(poolSize + 1)",
          "Raise max_connections, lower \(Setting.databasePool.environmentName), or put a pooler in between."))
    if let median = median(facts.roundTrips) {
      let text = "a round trip takes \(milliseconds(median)) (median of \(facts.roundTrips.count))"
      findings.append(
        median <= slowDatabase
          ? .ok(.postgresql, text)
          : .warning(.postgresql, text, "Run PostgreSQL near the workers, and look at its load."))
    }
    return findings
  }

  private static func durability(_ facts: DatabaseFacts) -> [Finding] {
    var findings: [Finding] = []
    func isOff(_ name: String) -> Bool { facts.settings[name] == "off" }
    let lossy = ["fsync", "full_page_writes", "synchronous_commit"].filter(isOff).joined(separator: ", ")
    if !lossy.isEmpty {
      findings.append(
        .error(
          .postgresql, "\(lossy) off: a crash of the server loses what was committed, and mail servers have removed it",
          "Switch \(lossy) on in postgresql.conf, and for the role and the database."))
    }
    if isOff("autovacuum") {
      findings.append(
        .warning(
          .postgresql, "autovacuum is off: the schedule's table, which is rewritten all the time, only grows",
          "Switch autovacuum on in postgresql.conf."))
    }
    if findings.isEmpty { findings.append(.ok(.postgresql, "commits survive a crash, and autovacuum is on")) }
    return findings
  }

  /// NOTIFY from the everyday connection has to arrive at the direct one.
  private func announcements(_ everyday: DatabaseExamination) async -> [Finding] {
    guard let url = settings.text(.databaseDirectURL) ?? settings.text(.databaseURL) else { return [] }
    let name = settings.text(.databaseDirectURL) == nil ? Setting.databaseURL : .databaseDirectURL
    let direct = DatabaseExamination(url: url)
    let finding: Finding
    do {
      finding =
        try await direct.hears(everyday)
        ? .ok(.postgresql, "announcements (LISTEN, NOTIFY) arrive")
        : .error(
          .postgresql, "announcements (LISTEN, NOTIFY) do not arrive over \(name.environmentName)",
          "It leads through a transaction pooler or to another database: give a direct URL in "
            + "\(Setting.databaseDirectURL.environmentName).")
    } catch {
      finding = .error(
        .postgresql, "\(name.environmentName): \(Self.words(error))",
        "Give a direct URL of the same database in \(Setting.databaseDirectURL.environmentName).")
    }
    await direct.close()
    return [finding]
  }

  /// Whether migrations would work with the URL that is given for them.
  private func migrating(_ url: String) async -> [Finding] {
    guard let owner = settings.text(.databaseMigrateURL) else { return [] }
    let examination = DatabaseExamination(url: owner)
    let finding: Finding
    do {
      finding =
        try await examination.mayMigrate()
        ? .ok(.postgresql, "the migrating role may change the schema")
        : .error(
          .postgresql, "the role of \(Setting.databaseMigrateURL.environmentName) may not create tables",
          "GRANT CREATE ON SCHEMA to it, or name the owner of the schema.")
    } catch {
      finding = .warning(
        .postgresql, "\(Setting.databaseMigrateURL.environmentName): \(Self.words(error))",
        "Only `postrider migrate` and `init` need it.")
    }
    await examination.close()
    return [finding]
  }

  // MARK: Key ring

  /// Whether the key ring is there, kept to itself, and opens what is stored.
  func keys() async -> [Finding] {
    let ring: KeyRing
    do { ring = try settings.keyRing() } catch {
      return [
        .error(
          .keys, Self.words(error),
          "Give the key ring of this installation in \(Setting.keysFile.environmentName); only a new installation makes "
            + "one with `postrider keys generate`.")
      ]
    }
    var findings = [Finding.ok(.keys, "\(Words.count(ring.ids.count, "key")), \(ring.ids[0]) encrypts")]
    // Its group may read it: so Kubernetes mounts a Secret, and so a file is given to a group of the processes alone.
    if settings.text(.keysRing) == nil, let path = settings.text(.keysFile), let mode = SecretFile.mode(path),
      mode & 0o037 != 0
    {
      let what = mode & 0o007 != 0 ? "others can read or change \(path)" : "its group can change \(path)"
      findings.append(
        .warning(.keys, what, "chmod 600 \(path), or 640 with a group of the processes alone."))
    }
    guard self.findings.hasSchema, let url = settings.text(.databaseURL) else {
      return findings + [.skipped(.keys, "stored secrets could not be looked at, as the database cannot be used")]
    }
    let examination = DatabaseExamination(url: url)
    do { findings += Self.findings(try await examination.sealedGroups(ring)) } catch {
      findings.append(
        .error(.keys, "stored secrets cannot be looked at: \(Self.words(error))", "Look at the server's log."))
    }
    await examination.close()
    return findings
  }

  /// What the stored secrets' states mean.
  static func findings(_ groups: [SealedGroup]) -> [Finding] {
    let count = groups.reduce(0) { $0 + $1.count }
    if count == 0 { return [.ok(.keys, "no secret is stored yet")] }
    let bad = groups.filter { $0.state != .readable }
    if bad.isEmpty { return [.ok(.keys, "the ring opens the \(Words.count(count, "stored secret"))")] }
    return bad.map { group in
      let what = "\(Words.count(group.count, "secret")) in \(group.place)"
      return switch group.state {
      case .missingKey:
        .error(
          .keys, "\(what) cannot be read: their key \(group.keyID) is not in the ring",
          "Put the line of the key \(group.keyID) back into the ring, below the first; it is in its backup.")
      case .wrongKey:
        .error(
          .keys, "\(what) cannot be read: the ring's key \(group.keyID) is not the one that encrypted them",
          "Use the key ring of this installation, from its backup; a key keeps its id for ever.")
      default:
        .error(
          .keys, "\(what) were not written by Postrider",
          "Look who else writes to this database, and enter them again.")
      }
    }
  }
}
