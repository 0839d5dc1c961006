import Foundation
import PostriderCore
import PostriderTesting
import PrivateServers
import Testing

@testable import postrider

@Suite("The administration commands, run as programs")
struct CommandTests {
  private static let leaves = [
    ["profile", "create"], ["profile", "list"], ["profile", "show"], ["mailbox", "create"], ["mailbox", "list"],
    ["mailbox", "show"], ["mailbox", "approve"], ["mailbox", "reject"], ["mailbox", "test"], ["mailbox", "poll"],
    ["alert", "list"], ["run", "list"], ["run", "show"], ["email", "list"], ["email", "show"], ["email", "raw"],
    ["email", "send"], ["email", "outgoing", "list"], ["email", "outgoing", "show"], ["email", "outgoing", "cancel"],
    ["email", "outgoing", "retry"],
    ["quarantine", "list"], ["quarantine", "show"], ["quarantine", "download"], ["quarantine", "reprocess"],
    ["quarantine", "discard"], ["mailbox", "reimport"],
    ["queue", "stats"], ["queue", "top"], ["queue", "inspect"], ["queue", "pause"], ["queue", "resume"],
    ["queue", "pauses"], ["queue", "poison", "list"], ["queue", "poison", "release"], ["queue", "repair"], ["whoami"],
    ["profile", "edit"], ["mailbox", "edit"], ["mailbox", "move"], ["mailbox", "import"], ["batch", "list"],
    ["batch", "show"], ["batch", "results"], ["batch", "watch"], ["batch", "cancel"],
    ["profile", "activate"], ["profile", "deactivate"], ["profile", "delete"], ["mailbox", "activate"],
    ["mailbox", "deactivate"], ["mailbox", "delete"], ["mailbox", "pause"], ["mailbox", "resume"],
    ["mailbox", "apply-defaults"], ["settings", "show"], ["settings", "edit"], ["alert", "show"], ["alert", "dismiss"],
    ["alert", "delete-all"],
  ]

  @Test("help", arguments: leaves)
  func help(command: [String]) async throws {
    let result = try await Program.run(command + ["--help"])
    #expect(result.exitCode == 0)
    #expect(result.output.contains("Example: postrider \(command.joined(separator: " "))"))
    #expect(result.output.contains("--json"))
    #expect(result.output.contains("--api-url"))
    #expect(!result.output.contains("--password <"))
  }

  @Test(
    "passwords are never arguments",
    arguments: [
      ["mailbox", "create", "--address", "a@example.com"],
      ["profile", "create", "--name", "x", "--credentials", "profile", "--user-name", "u"],
    ])
  func passwordArguments(command: [String]) async throws {
    for arguments in [["--password", "hunter2"], ["--password=hunter2"]] {
      let result = try await Program.run(command + arguments)
      #expect(result.exitCode == 64)
      #expect(result.errors.contains("never an argument"))
      #expect(!result.errors.contains("hunter2") && !result.output.contains("hunter2"))
    }
  }

  @Test func wrongCallsEndWith64() async throws {
    for arguments in [
      ["mailbox", "show"], ["mailbox", "approve"], ["mailbox", "approve", "1", "--all"],
      ["mailbox", "test", "--all", "--profile", "1"], ["mailbox", "poll", "--timeout", "0", "1"],
      ["mailbox", "import"],
      ["mailbox", "import", "a.csv", "--template"], ["batch", "show"], ["batch", "show", "x"],
      ["batch", "results", "1", "--result", "lost"], ["batch", "watch", "1", "--timeout", "0"],
      ["mailbox", "list", "--view", "nonsense"], ["mailbox", "list", "--limit", "0"], ["run", "show", "x"],
      ["email", "raw", "1", "--json"], ["mailbox", "create", "--address", "a@b", "--process-email-from", "soon"],
      ["mailbox", "create", "--address", "a@b", "--delete-after-processing"], ["whoami", "--api-url", "ftp://x"],
      ["queue", "pause"], ["queue", "resume", "--all", "--profile", "1"], ["queue", "top", "--sort", "size"],
      ["queue", "top", "--interval", "0"], ["queue", "top", "--limit", "0"], ["queue", "poison", "release"],
      ["queue", "poison", "release", "twelve"], ["queue", "poison", "release", "1p", "--all"],
      ["queue", "repair", "--timeout", "0"], ["profile", "edit", "1"], ["profile", "edit", "1", "--weight", "101"],
      ["profile", "edit", "1", "--max-connections", "0"], ["profile", "edit", "1", "--activate", "--deactivate"],
      ["settings", "edit"], ["settings", "edit", "--default-profile", "1", "--without-default-profile"],
      ["settings", "edit", "--max-message-size", "much"],
      ["settings", "edit", "--without-alerts", "--alert-level", "error"],
      ["alert", "list", "--wall", "mailbox"], ["alert", "list", "--wall", "profile"], ["alert", "dismiss", "0"],
      ["mailbox", "edit", "1", "--address", "b@example.com", "--dry-run"], ["mailbox", "delete"],
      ["profile", "delete"],
      ["mailbox", "edit", "1"], ["mailbox", "edit", "1", "2", "--activate", "--if-version", "1"],
      ["mailbox", "move", "1"], ["mailbox", "reimport", "1"], ["mailbox", "reimport", "1", "--choice", "some"],
      ["quarantine", "show"], ["quarantine", "reprocess"], ["quarantine", "discard", "0"],
      ["quarantine", "discard", "1", "--all"], ["quarantine", "discard", "1", "--mailbox", "2"],
      ["quarantine", "list", "--reason", "boredom"], ["quarantine", "download", "1", "--json"],
    ] {
      #expect(try await Program.run(arguments).exitCode == 64, "\(arguments)")
    }
  }

  @Test(
    "completions are made for each shell, with the words of enumerations and files", arguments: ["bash", "zsh", "fish"])
  func completions(shell: String) async throws {
    let result = try await Program.run(["--generate-completion-script", shell])
    #expect(result.exitCode == 0)
    for word in ["apply-defaults", "pending-approval", "login", "mailbox-manager"] {
      #expect(result.output.contains(word), "\(word)")
    }
    // Where a file is meant, the shell's own completion of files.
    let files =
      ["bash": "__postrider_add_completions -f", "zsh": "_files", "fish": "-rF"][shell] ?? "-"
    #expect(result.output.contains(files), "\(shell)")
    if shell == "bash" {
      let bash = try RunningProgram(["-n", "/dev/stdin"], executable: "/bin/bash", input: result.output)
      #expect(await bash.exit() == 0, "\(bash.errors)")
      bash.forget()
    }
  }

  @Test func anAPIThatIsNotThereEndsWith69() async throws {
    let result = try await Program.run(["whoami", "--api-url", "http://127.0.0.1:1", "--token", "t"])
    #expect(result.exitCode == 69)
    #expect(result.errors.contains("http://127.0.0.1:1 (from --api-url)"))
    #expect(result.errors.contains("postrider dev"))
    #expect(result.output == "")
  }

  @Test func whoamiOverAUnixSocket() async throws {
    try await withFolder { folder in
      try await StubAPI.run(socket: "\(folder)/api.sock") { _ in
        .json(Principal(organizationID: OrganizationID(3), userID: UserID(4), name: "Ada", role: .administrator))
      } _: { stub in
        let result = try await stub.run("whoami")
        #expect(result.exitCode == 0)
        #expect(result.output.contains("name          Ada\n"))
        #expect(stub.requests.map(\.name) == ["GET /whoami"])
        #expect(stub.requests.first?.authorization == "Bearer test-token")
      }
    }
  }

  @Test func errorsOfTheAPIBecomeWordsAndExitCodes() async throws {
    let cases: [(StubAnswer, Int, [String])] = [
      (
        .problem(
          422, "invalid", "2 fields are wrong",
          errors: [
            FieldProblem("/incoming/port", "out-of-range", "must be from 1 to 65535, is 0"),
            FieldProblem("/name", "required", "must not be empty"),
          ]), 1,
        ["2 fields are wrong", "\n  incoming port: must be from 1 to 65535, is 0", "\n  name: must not be empty"]
      ), (.problem(401, "unauthorized", "the token is not valid"), 1, ["POSTRIDER_TOKEN"]),
      (.problem(403, "insecure-channel", "not over plain HTTP"), 1, ["http+unix"]),
      (
        .problem(409, "name-taken", "a profile of that name exists"), 1,
        ["a profile of that name exists (409, name-taken)"]
      ),
      (
        .problem(
          422, "invalid", "One value is not allowed: /interval: must be from 1 to 1440, is 5000.",
          errors: [FieldProblem("/interval", "out-of-range", "must be from 1 to 1440, is 5000")]), 1,
        ["Error: One value is not allowed (422, invalid)\n  interval: must be from 1 to 1440, is 5000\n"]
      ),
      (.problem(503, "unavailable", "PostgreSQL does not answer"), 69, ["PostgreSQL does not answer", "Try again"]),
      (
        StubAnswer(status: 502, type: "text/html", body: Array("<h1>no</h1>".utf8)), 1, ["does not answer as Postrider"]
      ),
      (StubAnswer(body: Array("<h1>hello</h1>".utf8)), 1, ["/server-profiles is not what this version expects"]),
      (.problem(400, "x", "bad \u{1B}[2J"), 1, ["bad \\u{1b}[2J"]),
    ]
    for (answer, code, words) in cases {
      try await StubAPI.run(answer: { _ in answer }) { stub in
        let result = try await stub.run("profile", "create", "--name", "x", "--incoming-port", "0")
        #expect(result.exitCode == code)
        for word in words { #expect(result.errors.contains(word), "\(result.errors)") }
        #expect(result.output == "")
      }
    }
  }

  @Test func aProfileIsCreatedAsTheAPIReadsIt() async throws {
    try await withFolder { folder in
      let pem = try await TestAuthority.open(in: "\(folder)/authority").certificatePEM
      #expect(FileManager.default.createFile(atPath: "\(folder)/ca.pem", contents: Data(pem.utf8)))
      try await StubAPI.run { _ in
        StubAnswer(
          status: 201,
          body: Array(try JSONCoding.text(Sample.profile(9, "Example"), pretty: false).dropLast().utf8)
            + Array(",\"warnings\":[\"gmail.password\"]}".utf8))
      } _: { stub in
        let result = try await stub.run(
          "profile", "create", "--name", "Example", "--incoming-host", "pop.example.com", "--incoming-port", "110",
          "--incoming-tls", "starttls", "--outgoing-host", "smtp.example.com", "--interval", "5", "--max-connections",
          "50", "--timeout", "20", "--max-failed-logins", "5", "--ca-file", "\(folder)/ca.pem", "--credentials",
          "profile", "--user-name", "svc",
          "--login-as", "{mailbox}*{user}", "--mechanism", "plain", "--outgoing-mechanism", "login",
          "--password-stdin", "--process-email-from", "2026-03-02", "--default", input: "s3cret\n")
        #expect(result.exitCode == 0)
        #expect(result.errors.contains("app passwords"))
        #expect(!result.output.contains("s3cret"))
        let draft: ProfileDraft = try #require(stub.requests.first).decoded()
        #expect(draft.name == "Example" && draft.type == .pop3SMTP && draft.isDefault == true)
        #expect(draft.incoming?.host == "pop.example.com" && draft.incoming?.port == 110)
        #expect(draft.incoming?.tls == .starttls && draft.outgoing?.host == "smtp.example.com")
        #expect(draft.incoming?.loginAs == "{mailbox}*{user}" && draft.outgoing?.loginAs == nil)
        #expect(draft.incoming?.mechanism == .plain && draft.outgoing?.mechanism == .login)
        #expect(draft.incoming?.credentials == .profile && draft.incoming?.userName == "svc")
        #expect(draft.incoming?.password?.revealed == "s3cret")
        #expect(draft.minimumPollingIntervalMinutes == 5 && draft.maximumConcurrentConnections == 50)
        #expect(draft.connectionTimeoutSeconds == 20 && draft.caCertificatesPEM == pem)
        #expect(draft.maximumFailedLogins == 5)
        #expect(draft.processEmailFrom?.timeIntervalSince1970 == 1_772_409_600)
        let rules = ProfileRules()
        #expect(throws: Never.self) { try rules.resolve(draft) }
      }
    }
  }

  @Test func aMailboxIsCreatedWithAPasswordFromEachPlace() async throws {
    try await withFolder { folder in
      #expect(FileManager.default.createFile(atPath: "\(folder)/pw", contents: Data("from file\n".utf8)))
      let places: [([String], [String: String], String, String?)] = [
        (["--password-stdin"], [:], "from stdin\n", "from stdin"),
        (["--password-file", "\(folder)/pw"], [:], "", "from file"),
        ([], ["POSTRIDER_MAILBOX_PASSWORD": "from env"], "", "from env"),
        (["--no-password"], [:], "", nil),
        (["--no-password"], ["POSTRIDER_MAILBOX_PASSWORD": "from env"], "", nil),
      ]
      for (arguments, environment, input, expected) in places {
        try await StubAPI.run { request in
          request.method == "GET"
            ? .json(Sample.page([Sample.profile(4, "Other"), Sample.profile(5, "example MAIL")]))
            : .json(Sample.mailbox(1), status: 201)
        } _: { stub in
          let result = try await Program.run(
            [
              "mailbox", "create", "--address", "support@example.com", "--profile", "Example mail", "--owner-kind",
              "queue", "--owner-name", "Support", "--user-name", "u1", "--outgoing", "none",
              "--delete-after-processing", "--json",
            ] + arguments,
            environment: environment.merging(["POSTRIDER_API_URL": stub.url, "POSTRIDER_TOKEN": "t"]) { a, _ in a },
            input: input)
          #expect(result.exitCode == 0, "\(result.errors)")
          let draft: MailboxDraft = try #require(stub.requests.last).decoded()
          #expect(draft.address == "support@example.com" && draft.userName == "u1")
          #expect(draft.password?.revealed == expected)
          #expect(draft.profileID == ProfileID(5) && draft.owner?.kind == .queue && draft.owner?.name == "Support")
          #expect(draft.incomingMethod == nil && draft.outgoingMethod == SyncMethod.none)
          #expect(draft.deleteAfterProcessing == true)
          #expect(try JSONCoding.decoder().decode(Mailbox.self, from: Data(result.output.utf8)) == Sample.mailbox(1))
          #expect(throws: Never.self) { try MailboxRules.check(draft) }
        }
      }
    }
  }

  @Test func aMailboxWithoutAPasswordMustBeMeant() async throws {
    try await StubAPI.run(answer: { _ in .json(Sample.mailbox(1), status: 201) }) { stub in
      let result = try await stub.run("mailbox", "create", "--address", "a@example.com")
      #expect(result.exitCode == 64)
      for way in ["--password-stdin", "--password-file", "POSTRIDER_MAILBOX_PASSWORD", "--no-password"] {
        #expect(result.errors.contains(way), "\(result.errors)")
      }
      #expect(stub.requests.isEmpty)
    }
  }

  @Test func everyJSONDecodes() async throws {
    let statistics = QueueAnswer(
      queue: QueueStatistics(ready: ["poll": 3], inFlight: 2, blocked: ["limit": 1], serverMilliseconds: 5),
      schedule: ScheduleStatistics(overdue: 1, oldestDueMilliseconds: 4, scheduled: 9, leader: "s1"),
      jobsPerSecond: 2.5)
    let alert = Alert(
      id: AlertID(2), level: .error, code: "auth.rejected", text: "x", firstSeen: Sample.moment,
      lastSeen: Sample.moment)
    try await StubAPI.run { request in
      switch request.name {
      case "GET /mailboxes": .json(Sample.page([Sample.mailbox(1), Sample.mailbox(2)]))
      case "GET /mailboxes/1": .json(Sample.mailbox(1))
      case "GET /server-profiles": .json(Sample.page([Sample.profile(4, "Other")]))
      case "GET /alerts": .json(Sample.page([alert]))
      case "GET /runs": .json(Sample.page([Sample.run(3, .poll, .success)]))
      case "GET /runs/8": .json(Sample.failedTest)
      case "GET /emails": .json(Sample.page([Sample.email]))
      case "GET /emails/5": .json(Sample.email)
      case "GET /queue/stats": .json(statistics)
      case "GET /queue/inspect": .json(InspectAnswer(jobs: [JobLocation(job: "1p", state: "absent")]))
      default: .notFound
      }
    } _: { (stub: StubAPI) async throws in
      func decoded<Value: Decodable>(_ arguments: String...) async throws -> Value {
        let result = try await Program.run(
          arguments + ["--json"], environment: ["POSTRIDER_API_URL": stub.url, "POSTRIDER_TOKEN": "t"])
        #expect(result.exitCode == 0, "\(result.errors)")
        return try JSONCoding.decoder().decode(Value.self, from: Data(result.output.utf8))
      }
      #expect((try await decoded("mailbox", "list") as Page<Mailbox>).items.count == 2)
      #expect(try await decoded("mailbox", "show", "1") == Sample.mailbox(1))
      #expect(try await decoded("mailbox", "show", "1", "1") == Sample.mailbox(1))
      #expect((try await decoded("profile", "list") as Page<ServerProfile>).total == 1)
      #expect(try await decoded("profile", "show", "other") == Sample.profile(4, "Other"))
      #expect((try await decoded("alert", "list", "--resolved") as Page<Alert>).items == [alert])
      #expect((try await decoded("run", "list", "--kind", "poll") as Page<RunRecord>).items.count == 1)
      #expect(try await decoded("run", "show", "8") == Sample.failedTest)
      #expect((try await decoded("run", "show", "8", "8") as [RunRecord]).count == 2)
      #expect((try await decoded("email", "list") as Page<EmailRecord>).items == [Sample.email])
      #expect(try await decoded("email", "show", "5") == Sample.email)
      #expect((try await decoded("queue", "stats") as QueueAnswer).schedule.leader == "s1")
      let inspected: QueueInspect.Answer = try await decoded("queue", "inspect", "1")
      #expect(inspected.jobs.map(\.job) == ["1p"] && inspected.mailboxes == [Sample.mailbox(1)])
      #expect(stub.requests.first { $0.path == "/alerts" }?.query["resolved"] == "true")
      #expect(stub.requests.first { $0.path == "/runs" }?.query["kind"] == "poll")
    }
  }

  @Test func whatIsNotThereIsNamed() async throws {
    try await StubAPI.run { request in
      request.path == "/mailboxes"
        ? .json(
          Sample.page(
            [Sample.mailbox(1), Sample.mailbox(2)].map { mailbox in
              var mailbox = mailbox
              mailbox.owner.name = "Sam"
              return mailbox
            }.filter { _ in request.query["address"] == nil })) : .notFound
    } _: { stub in
      for (arguments, words) in [
        (["mailbox", "show", "99"], "there is no mailbox 99"),
        (["mailbox", "show", "a@example.com"], "no mailbox with the address a@example.com"),
        (["mailbox", "show", "Nobody"], "Nobody"),
        (["mailbox", "show", "sam"], "1 (m1@example.com), 2 (m2@example.com)"),
        (["run", "show", "5"], "there is no run 5"), (["email", "raw", "5"], "there is no message 5"),
      ] {
        let result = try await Program.run(
          arguments, environment: ["POSTRIDER_API_URL": stub.url, "POSTRIDER_TOKEN": "t"])
        #expect(result.exitCode == 1)
        #expect(result.errors.contains(words), "\(result.errors)")
      }
    }
  }

  @Test func rawMessagesArriveOctetForOctet() async throws {
    let raw = Array("Subject: x\r\n\r\n".utf8) + [0x1B, 0x5B, 0x41] + Array(repeating: 0x61, count: 200_000)
    try await StubAPI.run { _ in
      StubAnswer(type: "message/rfc822", body: raw)
    } _: { stub in
      let result = try await stub.run("email", "raw", "5")
      #expect(result.exitCode == 0)
      #expect(Array(result.output.utf8) == raw)
      #expect(stub.requests.map(\.name) == ["GET /emails/5/raw"])
    }
  }

  @Test func shownTextCannotSteerTheTerminal() async throws {
    try await StubAPI.run { request in
      request.path == "/emails" ? .json(Sample.page([Sample.email])) : .json(Sample.email)
    } _: { stub in
      let shown = try await stub.run("email", "show", "5")
      #expect(shown.output.contains("line one\n\\u{1b}[2Jline two"))
      #expect(shown.output.contains("a.pdf, application/pdf, 9 B, too large, content not kept"))
      #expect(!shown.output.contains("\u{1B}"))
      #expect(try await !stub.run("email", "list").output.contains("\u{1B}"))
    }
  }

  @Test func queueStatisticsForPeople() async throws {
    let answer = QueueAnswer(
      queue: QueueStatistics(
        ready: ["poll": 3, "send": 1], inFlight: 2, blocked: ["limit": 1, "breaker": 12, "paused": 0],
        oldestDueMilliseconds: ["poll": 1_772_441_990_000], poisoned: 1, workers: 2, workerSlots: 128,
        serverMilliseconds: 1_772_442_000_000),
      schedule: ScheduleStatistics(overdue: 7, oldestDueMilliseconds: 1_772_441_820_000, scheduled: 9, leader: nil),
      jobsPerSecond: 103.24, meanSessionSeconds: 0.8)
    try await StubAPI.run(answer: { _ in .json(answer) }) { stub in
      let output = try await stub.run("queue", "stats").output
      #expect(output.contains("poll               3          10.0 s\n"))
      #expect(output.contains("all                4"))
      #expect(output.contains("blocked      12 by breaker, 1 by limit\n"))
      #expect(output.contains("in flight    2 of 128 slots of 2 workers\n"))
      #expect(output.contains("rate         103.2 jobs/s, 800 ms each\n"))
      #expect(output.contains("poison       1 job set aside: postrider queue poison list\n"))
      #expect(output.contains("overdue      7, the oldest for 3 min\n"))
      #expect(output.contains("no scheduler leads"))
    }
  }
}
