import FoundationEssentials
import Subprocess
import Testing

@testable import PrivateServers

/// A conversation with a server through `openssl s_client`, which checks its certificate.
enum Dialogue {
  /// Connects, and for each step waits for a line with this beginning (`""`: sends at once) and answers it.
  ///
  /// Returns everything the server said. Ends when the server closes.
  static func talk(
    port: Int, startTLS: String? = nil, authority: TestAuthority, name: String = "mail.sandbox.test",
    _ steps: [(expect: String, send: String)]
  ) async throws -> [String] {
    // A server that does not say what is waited for must not hold the test.
    var arguments = [
      "120", try Programs.find("openssl", package: "openssl"), "s_client", "-quiet", "-connect", "127.0.0.1:\(port)",
      "-CAfile", authority.certificatePath,
      "-verify_return_error", "-verify_hostname", name,
    ]
    if let startTLS { arguments += ["-starttls", startTLS] }
    let configuration = Configuration.child(
      [try Programs.find("timeout", package: "coreutils")] + arguments, user: nil, deathSignal: .kill,
      environment: Command.environment)
    let result = try await Subprocess.run(
      configuration, input: .inputWriter, output: .sequence, error: .discarded
    ) { execution in
      var lines: [String] = []
      var next = 0
      func sendUnasked() async throws {
        while next < steps.count, steps[next].expect.isEmpty {
          _ = try await execution.standardInputWriter.write(Array((steps[next].send + "\r\n").utf8))
          next += 1
        }
      }
      try await sendUnasked()
      for try await line in execution.standardOutput.strings() {
        lines.append(line.filter { !$0.isNewline })
        if next < steps.count, line.hasPrefix(steps[next].expect) {
          _ = try await execution.standardInputWriter.write(Array((steps[next].send + "\r\n").utf8))
          next += 1
          try await sendUnasked()
        } else if next < steps.count, line.hasPrefix("-ERR") || line.hasPrefix("4") || line.hasPrefix("5") {
          // Refused: what was to follow is left out.
          _ = try await execution.standardInputWriter.write(Array("QUIT\r\n".utf8))
          next = steps.count
        }
      }
      try await execution.standardInputWriter.finish()
      return lines
    }
    return result.closureResult
  }

  /// Logs in over POP3 with TLS and returns the lines of the first message, or the refusal.
  static func firstMessage(
    port: Int, startTLS: String? = nil, authority: TestAuthority, user: String, password: String
  ) async throws -> [String] {
    let lines = try await talk(
      port: port, startTLS: startTLS, authority: authority,
      [
        (startTLS == nil ? "+OK" : "", "USER \(user)"), ("+OK", "PASS \(password)"), ("+OK Logged in", "RETR 1"),
        (".", "QUIT"),
      ])
    return lines
  }

  /// Submits a message with AUTH PLAIN and returns what the server said.
  static func submit(
    port: Int, startTLS: String?, authority: TestAuthority, user: String, password: String, sender: String? = nil,
    to recipient: String, message: String
  ) async throws -> [String] {
    let credentials = Data("\0\(user)\0\(password)".utf8).base64EncodedString()
    return try await talk(
      port: port, startTLS: startTLS, authority: authority,
      [
        (startTLS == nil ? "220 " : "", "EHLO client.test"), ("250 CHUNKING", "AUTH PLAIN \(credentials)"),
        ("235", "MAIL FROM:<\(sender ?? user)>"), ("250", "RCPT TO:<\(recipient)>"), ("250", "DATA"),
        ("354", message + "\r\n."), ("250", "QUIT"),
      ])
  }
}
