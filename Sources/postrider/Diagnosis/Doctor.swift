import AdminServer
import Foundation
import MailProtocols
import NIOPosix
import PostgresStore
import PostriderCore
import RedisQueue
import Synchronization

/// Examines a deployment from where this process stands, one area after the other.
///
/// An area that needs another one uses what that one has found.
final class Doctor: Sendable {
  let settings: Settings
  private let problems: [String]
  private let hosts: [ServerArgument]
  private let known = Mutex(Known())

  /// What later areas need of earlier ones.
  struct Known: Sendable {
    /// `nil` where it was not reached.
    var database: DatabaseFacts?
    /// Whether the database can be worked with: reached, schema as it should be.
    var hasSchema = false
    var redis: [RedisServerFacts] = []
  }

  /// - Parameters:
  ///   - settings: what could be read of the configuration.
  ///   - problems: what is wrong with the rest.
  ///   - hosts: mail servers that should be reachable.
  init(settings: Settings, problems: [String], hosts: [ServerArgument] = []) {
    self.settings = settings
    self.problems = problems
    self.hosts = hosts
  }

  /// What earlier areas have found.
  var findings: Known { known.withLock { $0 } }

  /// Keeps something for later areas.
  func keep(_ change: (inout Known) -> Void) { known.withLock { change(&$0) } }

  /// Everything about an area. Areas are to be asked for in their order.
  func examine(_ area: Finding.Area) async -> [Finding] {
    switch area {
    case .configuration: configuration()
    case .versions: await versions()
    case .redis: redis()
    case .postgresql: await postgresql()
    case .keys: await keys()
    case .clock: Self.clocks(findings)
    case .egress: await egress()
    }
  }

  // MARK: Configuration

  private func configuration() -> [Finding] {
    let list = "`postrider config list` shows every key with its range and default."
    var findings = problems.map { Finding.error(.configuration, $0, list) }
    for setting in [Setting.databaseURL, .redisURL] where settings.text(setting) == nil {
      // A key that is there and wrong is told already.
      if problems.contains(where: { $0.hasPrefix(setting.environmentName) }) { continue }
      findings.append(
        .error(.configuration, "\(setting.environmentName) is not set", "Set it. \(setting.help)"))
    }
    findings += risks()
    if settings.text(.redisURL) != nil {
      do { _ = try settings.queueConfiguration() } catch {
        findings.append(.error(.configuration, Self.words(error), list))
      }
    }
    let count = Setting.all.count { settings.isGiven($0) }
    if !findings.contains(where: { $0.level == .error }) {
      findings.insert(.ok(.configuration, "\(Words.count(count, "key")) set, all of them in their range"), at: 0)
    }
    return findings
  }

  private func risks() -> [Finding] {
    var findings: [Finding] = []
    if settings.flag(.allowsInsecureCredentials) {
      findings.append(
        .warning(
          .configuration, "passwords may be entered over plain HTTP",
          "Unless everybody on the way is trusted, put TLS in front of the API and take away "
            + "\(Setting.allowsInsecureCredentials.environmentName)."))
    }
    if settings.flag(.allowsNonTLS) {
      findings.append(
        .warning(
          .configuration, "server profiles may send passwords without TLS",
          "Take away \(Setting.allowsNonTLS.environmentName) unless a mail server of your own network needs it."))
    }
    if let finding = certificate() { findings.append(finding) }
    let spool = settings.text(.workerSpool) ?? "/tmp"
    if !FileManager.default.isWritableFile(atPath: spool) {
      findings.append(
        .error(
          .configuration, "large messages cannot be kept in \(spool), which this user cannot write to",
          "Name another directory with \(Setting.workerSpool.environmentName); only workers need it."))
    }
    return findings
  }

  /// The API's certificate: whether it can be served, and for how long.
  private func certificate(now: Date = Date()) -> Finding? {
    do {
      guard let files = try settings.apiTLS() else { return nil }
      let days = Int((try files.expiry().timeIntervalSince(now) / 86_400).rounded(.down))
      let renew = "Renew it: running processes read the new files by themselves."
      if days < 0 { return .error(.configuration, "the API's certificate has expired", renew) }
      let words = "the API's certificate is good for \(Words.count(days, "day"))"
      return days < 14 ? .warning(.configuration, words, renew) : .ok(.configuration, words)
    } catch {
      return .error(
        .configuration, "the API cannot serve TLS: \(Self.words(error))",
        "Only processes of the API need the files; running ones go on with the former certificate.")
    }
  }

  // MARK: Versions

  private func versions() async -> [Finding] {
    var findings = [Finding.ok(.versions, "Postrider \(Version.text)")]
    // What is wrong with it is told under `configuration`.
    let queue = settings.text(.redisURL) == nil ? nil : try? settings.queueConfiguration()
    let servers = await queue?.examine() ?? []
    let database = await databaseFacts()
    keep {
      $0.redis = servers
      $0.database = database
    }
    for server in servers where !server.version.isEmpty {
      // Too old a server is told with what else is wrong with it.
      findings.append(.ok(.versions, "\(server.version) at \(server.place)"))
    }
    if let database {
      let text = "PostgreSQL \(database.version)"
      findings.append(
        database.majorVersion >= 15
          ? .ok(.versions, text)
          : .warning(
            .versions, "\(text) is older than what Postrider is tested with (15)",
            "Upgrade PostgreSQL to 15 or newer."))
    }
    return findings
  }

  /// `nil` where the database cannot be reached; its own area says why.
  private func databaseFacts() async -> DatabaseFacts? {
    guard let url = settings.text(.databaseURL) else { return nil }
    let examination = DatabaseExamination(url: url)
    let facts = try? await examination.facts()
    await examination.close()
    return facts
  }

  // MARK: Egress

  private func egress() async -> [Finding] {
    let policy: EgressPolicy
    do { policy = try settings.egress() } catch {
      return [.error(.egress, Self.words(error), "Correct the settings; without a policy no mail goes anywhere.")]
    }
    let ports = policy.allowedPorts.sorted().map { String($0) }.joined(separator: ", ")
    let more = policy.allow.map { "\($0)" }.joined(separator: ", ")
    var findings = [
      Finding.ok(
        .egress,
        "mail may go to public addresses on the ports \(ports)" + (more.isEmpty ? "" : "; beyond that to \(more)"))
    ]
    let client = MailClient(group: MultiThreadedEventLoopGroup.singleton, egress: policy)
    for host in hosts { findings.append(await reach(host, client)) }
    if hosts.isEmpty {
      findings.append(
        .skipped(.egress, "no mail server was tried", "Name some with --host, such as --host pop.example.com:995."))
    }
    return findings
  }

  private func reach(_ host: ServerArgument, _ client: MailClient) async -> Finding {
    let port = host.port ?? 995
    let server = MailServer(host: host.host, port: port)
    let trace = SessionTrace(direction: .incoming)
    let endpoint = MailEndpoint(
      kind: .pop3, host: host.host, port: port, tls: .none, connectTimeout: .seconds(10), answerTimeout: .seconds(10))
    do {
      try await client.reach(endpoint, trace: trace)
      let time = trace.steps.reduce(0) { $0 + $1.milliseconds }
      return .ok(
        .egress, "\(server) can be reached (\(Words.tenths(time)) ms); `postrider analyze` tries TLS and login")
    } catch {
      let failure = error as? Failure ?? Failure(.internalError)
      return .error(.egress, "\(server) cannot be reached: \(failure)", failure.remedy)
    }
  }

  /// An error's words; never a secret.
  static func words(_ error: any Error) -> String {
    switch error {
    case let problems as Settings.Problems: problems.lines.joined(separator: "; ")
    case let error as StoreError: error.description
    case let error as JobQueueError: error.description
    case let error as KeyRing.FormatError: error.description
    default: String(describing: type(of: error))
    }
  }
}
