import PostriderTesting
import Testing

@testable import PrivateServers

#if canImport(Darwin)
  import Darwin
#elseif canImport(Musl)
  import Musl
#else
  import Glibc
#endif

@Suite("Mail sandbox", .enabled(if: geteuid() == 0, "Postfix needs root"))
struct MailSandboxTests {
  private let password = "se:cret pä\"ss"
  private let account = "demo@sandbox.test"

  private func start(
    in data: DataDirectory? = nil, _ change: (inout MailSandbox.Options) -> Void = { _ in }
  ) async throws -> MailSandbox {
    var options = MailSandbox.Options()
    change(&options)
    let directory: DataDirectory =
      if let data { data } else { try await TestServers.shared.dedicatedDirectory() }
    let sandbox = try await MailSandbox.start(in: directory, options: options)
    try await sandbox.addAccounts([(account, password), ("other@sandbox.test", "second")])
    return sandbox
  }

  @Test("what is submitted with AUTH over STARTTLS and over TLS is fetched over POP3S and STLS")
  func roundTrip() async throws {
    let sandbox = try await start()
    for (port, startTLS) in [(sandbox.submissionPort, "smtp"), (sandbox.submissionsPort, nil)] {
      let said = try await Dialogue.submit(
        port: try #require(port), startTLS: startTLS, authority: sandbox.authority, user: account, password: password,
        to: "other@sandbox.test", message: "Subject: round trip\r\n\r\nThe body")
      #expect(said.contains { $0.hasPrefix("250 2.0.0 Ok: queued") }, "\(said)")
      #expect(said.contains("250-AUTH PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256") == true, "\(said)")
    }
    #expect(try await eventually { try sandbox.dovecot.messageFiles(of: "other@sandbox.test").count == 2 })
    for (port, startTLS) in [(sandbox.pop3sPort, nil), (sandbox.pop3Port, "pop3")] {
      let lines = try await Dialogue.firstMessage(
        port: port, startTLS: startTLS, authority: sandbox.authority, user: "other@sandbox.test", password: "second")
      #expect(lines.contains("Subject: round trip"), "\(lines)")
      #expect(lines.contains("The body"))
    }
    await sandbox.stop()
    #expect(await sandbox.dovecot.processID == nil)
    #expect(await sandbox.postfix?.processID == nil)
  }

  @Test("wrong passwords are refused, a changed one counts soon")
  func passwords() async throws {
    let sandbox = try await start()
    let said = try await Dialogue.submit(
      port: try #require(sandbox.submissionsPort), startTLS: nil, authority: sandbox.authority, user: account,
      password: "wrong", to: account, message: "Subject: no\r\n\r\n")
    #expect(said.contains { $0.hasPrefix("535 5.7.8") }, "\(said)")
    try sandbox.deliver(to: account, subject: "waiting")
    func fetch(_ password: String) async throws -> [String] {
      try await Dialogue.talk(
        port: sandbox.pop3sPort, authority: sandbox.authority,
        [("+OK", "USER \(account)"), ("+OK", "PASS \(password)"), ("", "QUIT")])
    }
    #expect(try await fetch("wrong").contains("-ERR [AUTH] Authentication failed."))
    #expect(try await fetch(password).contains("+OK Logged in."))
    // Same length, same second.
    let changed = String(password.reversed())
    try sandbox.dovecot.addUser(account, password: changed)
    #expect(
      try await eventually { try await fetch(password).contains("-ERR [AUTH] Authentication failed.") })
    #expect(try await fetch(changed).contains("+OK Logged in."))
    await sandbox.stop()
  }

  @Test("nothing leaves the sandbox: outside mail comes back as a bounce, unknown users are refused")
  func outside() async throws {
    let sandbox = try await start()
    func submit(to recipient: String) async throws -> [String] {
      try await Dialogue.submit(
        port: try #require(sandbox.submissionsPort), startTLS: nil, authority: sandbox.authority, user: account,
        password: password, to: recipient, message: "Subject: out\r\n\r\n")
    }
    #expect(try await submit(to: "nobody@sandbox.test").contains { $0.hasPrefix("550 5.1.1") })
    #expect(try await submit(to: "someone@example.org").contains { $0.hasPrefix("250 2.0.0 Ok: queued") })
    #expect(
      try await eventually { try sandbox.dovecot.messageFiles(of: account).count == 1 },
      "\(Files.tail(sandbox.postfix?.logPath ?? "").joined(separator: "\n"))")
    let bounce = try #require(try sandbox.dovecot.messageFiles(of: account).first.flatMap { Files.read($0) })
    #expect(bounce.contains("multipart/report"))
    #expect(bounce.contains("Status: 5.1.1"))
    // Without a login nothing is taken at all, though the client is on this machine.
    let said = try await Dialogue.talk(
      port: try #require(sandbox.submissionsPort), authority: sandbox.authority,
      [
        ("220 ", "EHLO x"), ("250 CHUNKING", "MAIL FROM:<\(account)>"), ("250", "RCPT TO:<\(account)>"),
        ("554", "QUIT"),
      ])
    #expect(said.contains { $0.hasPrefix("554 5.7.1") }, "\(said)")
    await sandbox.stop()
  }

  @Test("two sandboxes run side by side; senders are checked where that is asked")
  func sideBySide() async throws {
    async let first = start()
    async let second = start { $0.postfix.checksSender = true }
    for (sandbox, isChecked) in [(try await first, false), (try await second, true)] {
      let said = try await Dialogue.submit(
        port: try #require(sandbox.submissionsPort), startTLS: nil, authority: sandbox.authority, user: account,
        password: password, sender: "other@sandbox.test", to: account, message: "Subject: forged\r\n\r\n")
      #expect(said.contains { $0.hasPrefix(isChecked ? "553 5.7.1" : "250 2.0.0 Ok: queued") }, "\(said)")
    }
    try await first.stop()
    try await second.stop()
  }

  @Test("accounts, mail, ports, certificate and the list of deliveries outlive a restart")
  func restart() async throws {
    let data = try await TestServers.shared.dedicatedDirectory()
    let first = try await start(in: data)
    let one = try first.deliver(to: account, subject: "Grüße aus dem Sandkasten, so lang, dass sie umbrochen werden")
    let ports = [first.pop3Port, first.pop3sPort, first.submissionPort ?? 0, first.submissionsPort ?? 0]
    await first.stop()
    let second = try await MailSandbox.start(in: data)
    #expect([second.pop3Port, second.pop3sPort, second.submissionPort ?? 0, second.submissionsPort ?? 0] == ports)
    #expect(second.caPEM == first.caPEM)
    let two = try second.deliver(to: account, subject: "second")
    #expect(second.deliveredMessageIDs(to: account) == [one, two])
    let lines = try await Dialogue.firstMessage(
      port: second.pop3sPort, authority: second.authority, user: account, password: password)
    #expect(lines.contains("Message-ID: \(one)"))
    #expect(Files.read(data.path + "/delivered") == "\(account)\t\(one)\n\(account)\t\(two)\n")
    await second.dovecot.kill9()
    #expect(Probe.greeting(host: second.host, port: second.pop3Port) == nil)
    try await second.dovecot.start()
    let greeting = Probe.greeting(host: second.host, port: second.pop3Port, limitMilliseconds: 20_000)
    #expect(greeting?.hasPrefix("+OK") == true)
    await second.stop()
  }

  @Test("addresses that cannot be folders are refused")
  func addresses() async throws {
    let sandbox = try await start { $0.submission = .none }
    #expect(sandbox.submissionPort == nil)
    for address in ["../up@sandbox.test", "a/b@sandbox.test", "@sandbox.test", "a@b@sandbox.test", "a@elsewhere.test"] {
      await #expect(throws: PrivateServerError.self) { try await sandbox.addAccount(address, password: "x") }
    }
    #expect(throws: PrivateServerError.self) { try sandbox.deliver(to: "stranger@sandbox.test", subject: "x") }
    await sandbox.stop()
  }
}

@Suite("Private Dovecot")
struct DovecotTests {
  @Test("mbox: a message with a From line comes back whole")
  func mbox() async throws {
    let data = try await TestServers.shared.dedicatedDirectory()
    let authority = try await TestAuthority.open(in: data.path + "/authority", owner: data.user)
    let certificate = try await authority.leaf("mail", for: ["mail.sandbox.test"])
    var options = PrivateDovecot.Options()
    options.store = .mbox
    let dovecot = try await PrivateDovecot.start(in: data, certificate: certificate, options: options)
    try dovecot.addUser("a@sandbox.test", password: "secret")
    try dovecot.deliver(to: "a@sandbox.test", message: Array("Subject: one\n\nFrom here\n".utf8))
    try dovecot.deliver(to: "a@sandbox.test", message: Array("Subject: two\n\nbody\n".utf8))
    let lines = try await Dialogue.firstMessage(
      port: dovecot.pop3sPort, authority: authority, user: "a@sandbox.test", password: "secret")
    #expect(lines.contains("Subject: one"), "\(lines)")
    #expect(lines.contains(">From here"))
    #expect(!lines.contains("Subject: two"))
    await dovecot.stop()
  }

  @Test("passwords without TLS are refused to others than the host itself where that is asked")
  func plaintext() async throws {
    let data = try await TestServers.shared.dedicatedDirectory()
    let authority = try await TestAuthority.open(in: data.path + "/authority", owner: data.user)
    let certificate = try await authority.leaf("mail", for: ["mail.sandbox.test"])
    var options = PrivateDovecot.Options()
    options.host = "127.0.0.2"
    options.allowsPlaintext = false
    let dovecot = try await PrivateDovecot.start(in: data, certificate: certificate, options: options)
    let capabilities = try await Command.run(
      "/bin/bash",
      ["-c", "exec 3<>/dev/tcp/127.0.0.2/\(dovecot.pop3Port); printf 'CAPA\\r\\nUSER a\\r\\nQUIT\\r\\n' >&3; cat <&3"])
    #expect(capabilities.contains("STLS"))
    #expect(capabilities.contains("PIPELINING"))
    #expect(capabilities.contains("-ERR [AUTH] Plaintext authentication disallowed"))
    await dovecot.stop()
  }

  @Test("a taken port that was asked for is named")
  func takenPort() async throws {
    let data = try await TestServers.shared.dedicatedDirectory()
    let authority = try await TestAuthority.open(in: data.path + "/authority", owner: data.user)
    let certificate = try await authority.leaf("mail", for: ["mail.sandbox.test"])
    let first = try await PrivateDovecot.start(in: data, certificate: certificate)
    var options = PrivateDovecot.Options()
    options.name = "second"
    options.pop3Port = first.pop3Port
    let error = await #expect(throws: PrivateServerError.self) {
      _ = try await PrivateDovecot.start(in: data, certificate: certificate, options: options)
    }
    #expect(error?.description.contains("port \(first.pop3Port)") == true)
    await first.stop()
  }
}
