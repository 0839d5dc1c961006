import Foundation
import PrivateServers
import Synchronization

/// What this run of the sandbox delivered, and when. The sandbox itself keeps the list of everything ever delivered.
final class DeliveryLog: Sendable {
  private let times = Mutex<[String: Date]>([:])

  /// Delivers a message and remembers when.
  func deliver(_ mail: MailSandbox, to address: String, subject: String) throws {
    let messageID = try mail.deliver(to: address, subject: subject)
    times.withLock { $0[Self.bare(messageID)] = Date() }
  }

  /// When a message was delivered by this run; `nil` for one of an earlier run.
  func time(of messageID: String) -> Date? { times.withLock { $0[messageID] } }

  /// A Message-ID without angle brackets, as it is stored.
  static func bare(_ messageID: String) -> String { messageID.trimmingCharacters(in: CharacterSet(charactersIn: "<>")) }
}
