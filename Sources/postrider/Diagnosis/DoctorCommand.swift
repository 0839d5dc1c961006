import ArgumentParser
import Foundation

/// `postrider doctor`
struct DoctorCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "doctor", abstract: "Examine the configuration and everything it leads to, and say what to do.",
    discussion: """
      Checks every key of the configuration; the versions; Redis: eviction policy, memory, latency, rights; PostgreSQL: \
      schema, rights, settings, latency, announcements; the key ring against the stored passwords; the clocks; and with \
      --host whether mail servers can be reached under the egress policy. Run it as the processes run: same user, same \
      variables, same network. It changes nothing; one key in Redis is written and removed.
      Exit code 0 when there is no error (there may be warnings), 1 otherwise.

      Examples:
        postrider doctor
        postrider doctor --host pop.example.com:995 --host smtp.example.com:587
        postrider doctor --data /var/lib/postrider          a running `postrider dev`
        postrider doctor --json | jq '.findings[] | select(.level == "error")'
      """)

  @Option(
    name: .customLong("host"),
    help: ArgumentHelp(
      "A mail server that should be reachable; may be given several times.",
      discussion: "Without a port: 995. Example: --host pop.example.com:995", valueName: "host[:port]"))
  var hosts: [ServerArgument] = []

  @OptionGroup var role: RoleOptions

  @Flag(help: "Print one JSON object at the end.")
  var json = false

  func run() async throws {
    try await ClientError.told {
      let environment = try role.environment()
      let (settings, problems) = Settings.read(file: role.config, environment: environment)
      let doctor = Doctor(settings: settings, problems: problems, hosts: hosts)
      var report = DoctorReport()
      for area in Finding.Area.allCases {
        let findings = await doctor.examine(area)
        report.findings += findings
        if !json { try Terminal.print(DoctorReport.text(area, findings)) }
      }
      try Terminal.print(json ? try JSONCoding.text(report) : report.summary)
      if !report.passed { throw ExitCode(1) }
    }
  }
}

/// Everything that was found out.
struct DoctorReport: Hashable, Sendable, Encodable {
  var findings: [Finding] = []

  /// Whether there is no error.
  var passed: Bool { count(.error) == 0 }

  private func count(_ level: Finding.Level) -> Int { findings.count { $0.level == level } }

  /// The last line for people.
  var summary: String {
    let (errors, warnings) = (count(.error), count(.warning))
    if errors + warnings == 0 { return "Everything looks well." }
    return "\(Words.count(errors, "error")), \(Words.count(warnings, "warning"))."
  }

  /// An area's findings for people, each with what to do below it.
  static func text(_ area: Finding.Area, _ findings: [Finding]) -> String {
    let lines = findings.flatMap { finding in
      let level = finding.level == .error ? "ERROR" : finding.level.rawValue
      let mark = level + String(repeating: " ", count: max(0, 8 - level.count))
      return ["  \(mark) \(Terminal.safe(finding.text))"]
        + (finding.remedy.map { ["           What to do: \(Terminal.safe($0))"] } ?? [])
    }
    return ([area.rawValue] + lines).joined(separator: "\n")
  }

  private enum Keys: String, CodingKey {
    case passed, errors, warnings, findings
  }

  func encode(to encoder: any Encoder) throws {
    var values = encoder.container(keyedBy: Keys.self)
    try values.encode(passed, forKey: .passed)
    try values.encode(count(.error), forKey: .errors)
    try values.encode(count(.warning), forKey: .warnings)
    try values.encode(findings, forKey: .findings)
  }
}
