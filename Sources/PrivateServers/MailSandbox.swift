import FoundationEssentials
import Logging
import Synchronization

#if canImport(Darwin)
  import Darwin
#elseif canImport(Musl)
  import Musl
#else
  import Glibc
#endif

/// A mail provider of one's own for one domain: Dovecot, Postfix and an authority for their certificate.
public final class MailSandbox: Sendable {
  /// Whether mail can be sent.
  public enum Submission: Hashable, Sendable {
    /// With Postfix, which needs root.
    case required
    /// With Postfix where this process is root, receiving only where it is not.
    case whenRoot
    /// Receiving only.
    case none
  }

  /// How to run it.
  public struct Options: Sendable {
    /// The mail domain. `.test` is reserved (RFC 6761 section 6.2).
    public var domain = "sandbox.test"
    /// Whether mail can be sent.
    public var submission = Submission.required
    /// How to run Dovecot.
    public var dovecot = PrivateDovecot.Options()
    /// How to run Postfix.
    public var postfix = PrivatePostfix.Options()

    /// `sandbox.test`, receiving and sending, nothing is restarted.
    public init() {}
  }

  /// The mail domain.
  public let domain: String
  /// Signs the servers' certificate, which names ``hostName``, `localhost` and the loopback addresses.
  public let authority: TestAuthority
  /// POP3, users and mail.
  public let dovecot: PrivateDovecot
  /// Submission; `nil` where there is none.
  public let postfix: PrivatePostfix?
  /// The authority's certificate (PEM), for a profile's own trust.
  public var caPEM: String { authority.certificatePEM }
  /// The name that the certificate is made for: `mail.` and the domain. It is not in the DNS.
  public var hostName: String { "mail.\(domain)" }
  /// The address that the servers listen on.
  public var host: String { dovecot.host }
  /// The port of POP3 with STLS.
  public var pop3Port: Int { dovecot.pop3Port }
  /// The port of POP3 over TLS.
  public var pop3sPort: Int { dovecot.pop3sPort }
  /// The port of submission with STARTTLS; `nil` where there is none.
  public var submissionPort: Int? { postfix?.submissionPort }
  /// The port of submission over TLS; `nil` where there is none.
  public var submissionsPort: Int? { postfix?.submissionsPort }
  private let ledgerPath: String
  private let maps = OneAtATime()
  private let delivered: Mutex<[String: [String]]>

  private init(
    domain: String, authority: TestAuthority, dovecot: PrivateDovecot, postfix: PrivatePostfix?, ledgerPath: String
  ) {
    self.domain = domain
    self.authority = authority
    self.dovecot = dovecot
    self.postfix = postfix
    self.ledgerPath = ledgerPath
    delivered = Mutex(
      (Files.read(ledgerPath, last: .max) ?? "").split(separator: "\n").reduce(into: [:]) { ledger, line in
        let fields = line.split(separator: "\t")
        if fields.count == 2 { ledger[String(fields[0]), default: []].append(String(fields[1])) }
      })
  }

  /// Starts both servers in a data directory; accounts, mail, certificate and, where they are free, ports of an earlier
  /// run are there again.
  public static func start(
    in data: DataDirectory, options: Options = Options(), logger: Logger = .silent
  ) async throws -> MailSandbox {
    let authority = try await TestAuthority.open(in: data.path + "/authority", owner: data.user)
    let certificate = try await authority.leaf(
      "mail-\(options.domain)", for: ["mail.\(options.domain)", "localhost", "127.0.0.1", "127.0.0.2", "::1"])
    let wantsPostfix =
      switch options.submission {
      case .required: true
      case .whenRoot: geteuid() == 0
      case .none: false
      }
    let dovecot = try await PrivateDovecot.start(
      in: data, certificate: certificate, options: options.dovecot, logger: logger)
    do {
      let postfix =
        wantsPostfix
        ? try await PrivatePostfix.start(
          in: data, dovecot: dovecot, domain: options.domain, certificate: certificate, options: options.postfix,
          logger: logger) : nil
      return MailSandbox(
        domain: options.domain, authority: authority, dovecot: dovecot, postfix: postfix,
        ledgerPath: data.path + "/delivered")
    } catch {
      await dovecot.stop()
      throw error
    }
  }

  /// Adds an account that can receive, and send where there is submission.
  public func addAccount(_ address: String, password: String) async throws {
    try await addAccounts([(address, password)])
  }

  /// Adds accounts, much quicker than one by one.
  public func addAccounts(_ accounts: [(address: String, password: String)]) async throws {
    for (address, _) in accounts where !address.lowercased().hasSuffix("@" + domain) {
      throw PrivateServerError.invalid("\(address) is not an address of \(domain)")
    }
    for (address, password) in accounts { try dovecot.addUser(address, password: password) }
    try await maps.run { [dovecot, postfix] in try await postfix?.setMailboxes(dovecot.addresses) }
  }

  /// Puts a new message into an account's mailbox, as if it had come from outside.
  /// - Parameters:
  ///   - address: The account.
  ///   - subject: Any text without line breaks.
  ///   - sender: The address in `From`.
  ///   - body: Plain text.
  /// - Returns: Its Message-ID, angle brackets included.
  @discardableResult
  public func deliver(
    to address: String, subject: String, from sender: String = "postmaster@example.org",
    body: String = "Hello from the sandbox.\n"
  ) throws -> String {
    let messageID = "<\(UUID().uuidString.lowercased())@sandbox.invalid>"
    let message = """
      Return-Path: <\(Self.line(sender))>
      Delivered-To: \(Self.line(address))
      Date: \(Self.dateNow())
      From: \(Self.line(sender))
      To: \(Self.line(address))
      Subject: \(Self.encoded(subject))
      Message-ID: \(messageID)
      MIME-Version: 1.0
      Content-Type: text/plain; charset=utf-8
      Content-Transfer-Encoding: 8bit

      \(body)
      """
    try deliver(to: address, message: Array(message.utf8), messageID: messageID)
    return messageID
  }

  /// Puts a message as it is into an account's mailbox, and its Message-ID into the account's list.
  public func deliver(to address: String, message: [UInt8], messageID: String) throws {
    // Noted first: a message that is missing in the end was either delivered or never there, and the list says so.
    try delivered.withLock { ledger in
      try Files.append("\(address.lowercased())\t\(Self.line(messageID))\n", to: ledgerPath)
      ledger[address.lowercased(), default: []].append(messageID)
    }
    try dovecot.deliver(to: address, message: message)
  }

  /// The Message-IDs put into an account's mailbox by ``deliver(to:subject:from:body:)``, oldest first, those of earlier
  /// runs included. Also in the file `delivered` of the data directory: address, tab, Message-ID.
  public func deliveredMessageIDs(to address: String) -> [String] {
    delivered.withLock { $0[address.lowercased()] ?? [] }
  }

  /// Ends both servers, Postfix first, as it asks Dovecot for passwords.
  public func stop() async {
    await postfix?.stop()
    await dovecot.stop()
  }

  /// A header's value stays on its line.
  private static func line(_ text: String) -> String { text.filter { !$0.isNewline } }

  /// An encoded word (RFC 2047) where the text is not ASCII.
  private static func encoded(_ text: String) -> String {
    if text.utf8.allSatisfy({ (0x20...0x7E).contains($0) }) { return text }
    // At most 75 characters each: 45 octets of text, never cutting a character.
    var words: [String] = []
    var word = ""
    for character in text {
      if word.utf8.count + String(character).utf8.count > 45 {
        words.append(word)
        word = ""
      }
      word.append(character)
    }
    return (words + [word]).map { "=?utf-8?B?\(Data($0.utf8).base64EncodedString())?=" }.joined(separator: "\n ")
  }

  /// RFC 5322 section 3.3, in UTC.
  private static func dateNow() -> String {
    var seconds = time(nil)
    var parts = tm()
    gmtime_r(&seconds, &parts)
    let days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
    return "\(days[Int(parts.tm_wday)]), \(parts.tm_mday) \(months[Int(parts.tm_mon)]) \(1900 + parts.tm_year) "
      + "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec)) +0000"
  }
}

/// Runs pieces of work one after the other, in the order in which they were asked for: the last map written knows every
/// account.
private actor OneAtATime {
  private var last: Task<Void, any Error>?

  func run(_ work: @escaping @Sendable () async throws -> Void) async throws {
    let previous = last
    let task = Task {
      // Whether it worked is its caller's business.
      _ = await previous?.result
      try await work()
    }
    last = task
    try await task.value
  }
}
