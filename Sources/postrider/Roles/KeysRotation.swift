import ArgumentParser
import FoundationEssentials
import PostgresStore
import PostriderCore

/// The file that a command changes.
struct KeyFileOption: ParsableArguments {
  @Option(name: .long, help: ArgumentHelp("The key ring's file.", valueName: "file"), completion: .file())
  var file: String
}

extension KeysCommand {
  /// `postrider keys add`
  struct Add: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Adds a fresh key to a ring, last: it decrypts and does not encrypt yet.",
      discussion: """
        Give the file to every process (a restart each) and back it up before the key is promoted: a process without the \
        key could not read what the others encrypt with it.

        Example: postrider keys add --file /etc/postrider/keys
        """)

    @OptionGroup var file: KeyFileOption
    @Option(help: "The key's id, 1 to 64 characters, never used before (default: a random one).") var id: String?

    func validate() throws {
      if let id,
        !(1...64).contains(id.utf8.count)
          || !id.allSatisfy({ $0.isASCII && !$0.isWhitespace && $0 != ":" && $0 != "#" })
      {
        throw ValidationError("--id must be 1 to 64 ASCII characters without blanks, colons and number signs")
      }
    }

    func run() async throws {
      try await ClientError.told {
        var ring = try KeyFile(file.file)
        let added = KeyRing.generate(id: id)
        try ring.append(added)
        try ring.write()
        try Terminal.print(
          "Added \(added.ids[0]). Give the file to every process, then: postrider keys promote \(added.ids[0]) "
            + "--file \(file.file)")
      }
    }
  }

  /// `postrider keys promote`
  struct Promote: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Puts a key of a ring first: it encrypts from now on.",
      discussion: "Example: postrider keys promote k2f4c01aa --file /etc/postrider/keys")

    @Argument(help: "The key's id.") var id: String
    @OptionGroup var file: KeyFileOption

    func run() async throws {
      try await ClientError.told {
        var ring = try KeyFile(file.file)
        try ring.promote(id)
        try ring.write()
        try Terminal.print("\(id) encrypts. Give the file to every process, then: postrider keys rotate")
      }
    }
  }

  /// `postrider keys rotate`
  struct Rotate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Encrypts everything stored anew with the ring's first key, while all goes on.",
      discussion: """
        Uses POSTRIDER_DATABASE_URL and the ring of POSTRIDER_KEYS_FILE, as the processes do. It can be stopped and begun \
        again. What cannot be read stays as it is, is counted, and makes the exit code 1.

        Example: postrider keys rotate --dry-run
        """)

    @OptionGroup var role: RoleOptions
    @Flag(help: "Only say how much there is to do.") var dryRun = false
    @Flag(help: "Print one JSON object.") var json = false

    func run() async throws {
      try await ClientError.told {
        let settings = try await role.settings(required: [.databaseURL])
        let ring = try settings.keyRing()
        let rotation = SecretRotation(url: try settings.required(.databaseURL), ring: ring)
        let report: RotationReport
        do { report = try await rotation.rotate(dryRun: dryRun) } catch StoreError.unavailable(let reason) {
          throw ServiceUnreachable(description: "PostgreSQL cannot be reached: \(reason)")
        }
        if json {
          try Terminal.print(try JSONCoding.text(report))
        } else {
          let what = dryRun ? "would be encrypted anew with" : "encrypted anew with"
          try Terminal.print(
            "\(Words.count(report.changed, "secret")) \(what) \(ring.ids[0]), \(report.kept) were so already.")
          for (id, count) in report.unreadable.sorted(by: { $0.key < $1.key }) {
            writeError("error: \(Words.count(count, "secret")) cannot be read: \(Self.cause(id, ring))")
          }
        }
        if !report.unreadable.isEmpty { throw ExitCode(1) }
      }
    }

    private static func cause(_ id: String, _ ring: KeyRing) -> String {
      if id.isEmpty { return "Postrider did not write them" }
      if ring.ids.contains(id) { return "the ring's key \(id) is not the one that encrypted them" }
      return "their key \(id) is not in the ring; it is in the ring's backup"
    }
  }

  /// `postrider keys status`
  struct Status: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Says which keys encrypt what is stored, and whether the ring opens it.",
      discussion: """
        Exit code 1 when something cannot be read.

        Example: postrider keys status --json
        """)

    @OptionGroup var role: RoleOptions
    @Flag(help: "Print one JSON object.") var json = false

    /// One key, in the ring or only met in the database.
    struct KeyState: Encodable {
      var id: String
      /// `encrypts`, `decrypts` or `missing`.
      var state: String
      var secrets: Int
      var readable: Bool
      /// By column.
      var places: [String: Int]
    }

    struct Answer: Encodable {
      var keys: [KeyState]
    }

    func run() async throws {
      try await ClientError.told {
        let settings = try await role.settings(required: [.databaseURL])
        let ring = try settings.keyRing()
        let answer = Answer(keys: Self.states(ring, try await Self.groups(settings, ring)))
        if json {
          try Terminal.print(try JSONCoding.text(answer))
        } else {
          var table = Table(.text("KEY"), .text("STATE"), .number("SECRETS"), .flexible("WHERE"))
          for key in answer.keys {
            let places = key.places.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
            table.add(
              key.id.isEmpty ? "(none of ours)" : key.id, key.readable ? key.state : "\(key.state), CANNOT BE READ",
              String(key.secrets), places)
          }
          try Terminal.print(table.rendered())
        }
        if answer.keys.contains(where: { !$0.readable }) { throw ExitCode(1) }
      }
    }

    static func groups(_ settings: Settings, _ ring: KeyRing) async throws -> [SealedGroup] {
      let examination = DatabaseExamination(url: try settings.required(.databaseURL))
      do {
        let groups = try await examination.sealedGroups(ring)
        await examination.close()
        return groups
      } catch {
        await examination.close()
        guard case StoreError.unavailable(let reason) = error else { throw error }
        throw ServiceUnreachable(description: "PostgreSQL cannot be reached: \(reason)")
      }
    }

    static func states(_ ring: KeyRing, _ groups: [SealedGroup]) -> [KeyState] {
      let others = Set(groups.map(\.keyID)).subtracting(ring.ids).sorted()
      return (ring.ids + others).map { id in
        let own = groups.filter { $0.keyID == id }
        let state = id == ring.ids[0] ? "encrypts" : ring.ids.contains(id) ? "decrypts" : "missing"
        return KeyState(
          id: id, state: state, secrets: own.reduce(0) { $0 + $1.count },
          readable: own.allSatisfy { $0.state == .readable },
          places: Dictionary(own.map { ($0.place, $0.count) }, uniquingKeysWith: +))
      }
    }
  }

  /// `postrider keys retire`
  struct Retire: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Takes a key out of a ring, when nothing that is stored needs it.",
      discussion: """
        Asks the database of POSTRIDER_DATABASE_URL. Backups of the database still need the key: keep it with them.

        Example: postrider keys retire k81aa03c7 --file /etc/postrider/keys
        """)

    @Argument(help: "The key's id.") var id: String
    @OptionGroup var file: KeyFileOption
    @OptionGroup var role: RoleOptions

    func run() async throws {
      try await ClientError.told {
        var ring = try KeyFile(file.file)
        try ring.remove(id)
        let settings = try await role.settings(required: [.databaseURL])
        let groups = try await Status.groups(settings, .generate())
        let needing = groups.filter { $0.keyID == id }
        guard needing.isEmpty else {
          let count = needing.reduce(0) { $0 + $1.count }
          throw ClientError.failed(
            "\(Words.count(count, "secret")) \(count == 1 ? "is" : "are") still encrypted with \(id); run `postrider keys "
              + "rotate` first")
        }
        try ring.write()
        try Terminal.print(
          "Took \(id) out. Give the file to every process; keep the key with the backups of the database before.")
      }
    }
  }
}
