import Foundation
import MailProtocols

extension Settings {
  /// Where mail may go. Throws ``Settings/Problems``.
  func egress() throws -> EgressPolicy {
    do {
      return try EgressPolicy(ports: text(.egressPorts) ?? "default", allow: text(.egressAllow) ?? "")
    } catch {
      throw Problems(lines: [
        "\(Setting.egressPorts.environmentName), \(Setting.egressAllow.environmentName): \(error)"
      ])
    }
  }

  /// The name given in EHLO.
  var heloName: String { text(.workerHelo) ?? ProcessInfo.processInfo.hostName }
}
