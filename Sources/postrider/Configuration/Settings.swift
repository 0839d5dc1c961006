import Configuration
import Foundation
import PostriderCore

/// The configuration of a process: environment over file over defaults, checked as a whole.
struct Settings: Sendable {
  private var values: [String: String]

  /// Every wrong key of a configuration. The process ends with exit code 78 (EX_CONFIG).
  struct Problems: Error, CustomStringConvertible {
    var lines: [String]
    var description: String {
      "The configuration is wrong:\n" + lines.map { "  \($0)" }.joined(separator: "\n")
        + "\n`postrider config list` shows every key with its range and default."
    }
  }

  /// Reads and checks every key.
  ///
  /// - Parameters:
  ///   - file: A JSON file; keys as `config list` shows them, dots as nesting.
  ///   - environment: The process's environment.
  ///   - overrides: Values by key that win over everything, from flags or a running `postrider dev`.
  ///   - required: Keys that this command cannot do without.
  static func load(
    file: String? = nil, environment: [String: String] = ProcessInfo.processInfo.environment,
    overrides: [String: String] = [:], required: [Setting] = []
  ) async throws -> Settings {
    let (settings, problems) = read(file: file, environment: environment, overrides: overrides)
    var lines = problems
    for setting in required where settings.values[setting.key] == nil {
      lines.append("\(setting.environmentName): is required. \(setting.help)")
    }
    guard lines.isEmpty else { throw Problems(lines: lines) }
    return settings
  }

  /// Reads every key. What is wrong is told beside the rest; its default, if there is one, stands in for it.
  static func read(
    file: String?, environment: [String: String], overrides: [String: String] = [:]
  ) -> (settings: Settings, problems: [String]) {
    var lines: [String] = []
    var providers: [any ConfigProvider] = [EnvironmentVariablesProvider(environmentVariables: environment)]
    if let file {
      let values = Self.flatten(file, &lines)
      providers.append(
        InMemoryProvider(
          name: file,
          values: Dictionary(
            uniqueKeysWithValues: values.map { key, value in
              (
                AbsoluteConfigKey(["postrider"] + key.split(separator: ".").map(String.init)),
                ConfigValue(.string(value), isSecret: false)
              )
            })))
    }
    let reader = ConfigReader(providers: providers).scoped(to: "postrider")
    var values: [String: String] = [:]
    for setting in Setting.all {
      var value = overrides[setting.key] ?? reader.string(forKey: ConfigKey(setting.key), isSecret: setting.isSecret)
      if value == nil, setting.isSecret, let path = environment["\(setting.environmentName)_FILE"] {
        do {
          value = try String(contentsOfFile: path, encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
        } catch {
          lines.append("\(setting.environmentName)_FILE: cannot read \(path)")
        }
      }
      guard let value = value ?? setting.fallback, !value.isEmpty else { continue }
      if let problem = setting.problem(with: value) {
        lines.append("\(setting.environmentName): \(problem)")
        values[setting.key] = setting.fallback
      } else {
        values[setting.key] = value
      }
    }
    let known = Set(Setting.all.flatMap { [$0.environmentName, "\($0.environmentName)_FILE"] }).union(foreignNames)
    for name in environment.keys.sorted() where name.hasPrefix("POSTRIDER_") && !known.contains(name) {
      lines.append("\(name): there is no such key")
    }
    return (Settings(values: values), lines)
  }

  /// A JSON file's values by dotted key, as text. Notes keys that do not exist.
  private static func flatten(_ file: String, _ lines: inout [String]) -> [String: String] {
    var values: [String: String] = [:]
    func walk(_ value: Any, _ path: [String]) {
      let key = path.joined(separator: ".")
      if let object = value as? [String: Any] {
        for (name, value) in object { walk(value, path + [name]) }
      } else if !Setting.all.contains(where: { $0.key == key }) {
        lines.append("\(file): there is no key \(key)")
      } else if let list = value as? [Any] {
        values[key] = list.map { "\($0)" }.joined(separator: ",")
      } else {
        values[key] = "\(value)"
      }
    }
    do {
      let data = try Data(contentsOf: URL(fileURLWithPath: file))
      walk(try JSONSerialization.jsonObject(with: data), [])
    } catch {
      lines.append("\(file): cannot be read as JSON: \(error.localizedDescription)")
    }
    return values
  }

  /// Names with our prefix that are not configuration of a process: the CLI's, the build's and the tests'.
  static let foreignNames: Set<String> = [
    "POSTRIDER_API_URL", "POSTRIDER_TOKEN", "POSTRIDER_TOKEN_FILE", "POSTRIDER_DATA", "POSTRIDER_MAILBOX_PASSWORD",
    "POSTRIDER_PROFILE_PASSWORD", "POSTRIDER_OAUTH_SECRET", "POSTRIDER_USER_PASSWORD", "POSTRIDER_CURRENT_PASSWORD",
    "POSTRIDER_PASSWORD",
    "POSTRIDER_CLI_ENV", "POSTRIDER_STRICT", "POSTRIDER_CORPORA",
  ]

  /// A value as text; `nil` when neither given nor defaulted.
  func text(_ setting: Setting) -> String? { values[setting.key] }

  /// Whether a value was given, and not just defaulted.
  func isGiven(_ setting: Setting) -> Bool { values[setting.key].map { $0 != setting.fallback } ?? false }

  /// A value that was declared required.
  func required(_ setting: Setting) throws -> String {
    guard let value = values[setting.key] else {
      throw Problems(lines: ["\(setting.environmentName): is required. \(setting.help)"])
    }
    return value
  }

  /// A number; its setting has a default.
  func number(_ setting: Setting) -> Int { Int(values[setting.key] ?? "") ?? 0 }

  /// A switch; its setting has a default.
  func flag(_ setting: Setting) -> Bool { values[setting.key].map(Setting.isTrue) ?? false }

  /// The items of a list.
  func list(_ setting: Setting) -> [String] {
    Self.words(of: values[setting.key] ?? "")
  }

  /// The networks of a list.
  func networks(_ setting: Setting) -> [AddressRange] { list(setting).compactMap { AddressRange($0) } }

  static func words(of list: String) -> [String] {
    list.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
  }
}

extension Setting {
  static func isTrue(_ text: String) -> Bool { ["true", "1", "yes", "on"].contains(text.lowercased()) }

  /// What is wrong with a value; `nil` when nothing. Never repeats a secret.
  func problem(with value: String) -> String? {
    let shown = isSecret ? "the value" : "`\(value)`"
    switch kind {
    case .text, .path, .list: return nil
    case .networks:
      let wrong = Settings.words(of: value).first { AddressRange($0) == nil }
      return wrong.map { "`\($0)` must be an address or a network, such as 10.0.0.0/8" }
    case .levels: return LogPart.levels(value) == nil ? "\(shown) must be \(range)" : nil
    case .url(let schemes):
      return schemes.contains { value.hasPrefix("\($0)://") } ? nil : "\(shown) must begin with \(range)"
    case .number(let range):
      guard let number = Int(value), range.contains(number) else { return "\(shown) must be a number, \(self.range)" }
      return nil
    case .flag:
      let words = ["true", "false", "1", "0", "yes", "no", "on", "off"]
      return words.contains(value.lowercased()) ? nil : "\(shown) must be true or false"
    case .choice(let words): return words.contains(value) ? nil : "\(shown) must be one of \(range)"
    }
  }
}
