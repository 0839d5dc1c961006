import Crypto
import Foundation
import Synchronization

/// One message as the server offers it.
struct OfferedMessage: Sendable {
  let uidl: String
  let octets: [UInt8]
  let hash: [UInt8]

  init(uidl: String, octets: [UInt8]) {
    self.uidl = uidl
    self.octets = octets
    hash = Array(SHA256.hash(data: octets))
  }

  /// The octets on the wire: dots stuffed (RFC 1939 section 3), without the end.
  var stuffed: [UInt8] {
    var out: [UInt8] = []
    out.reserveCapacity(octets.count + 16)
    var atLineStart = true
    for octet in octets {
      if atLineStart && octet == UInt8(ascii: ".") { out.append(octet) }
      out.append(octet)
      atLineStart = octet == UInt8(ascii: "\n")
    }
    return out
  }
}

/// The mail of one account. Remembers everything it ever offered.
final class Maildrop: Sendable {
  private struct State {
    var present: [OfferedMessage] = []
    var offered: [String: [UInt8]] = [:]
    var number = 0
  }

  let name: String
  private let state = Mutex(State())

  init(name: String) { self.name = name }

  /// A new message arrives.
  func deliver(using dice: inout Dice) {
    let lines = dice.number(below: 12) == 0 ? 300 : 2 + dice.number(below: 12)
    let mark = dice.next()
    state.withLock { state in
      state.number += 1
      let uidl = "\(state.number)-\(String(mark, radix: 36))"
      var text = """
        From: sender@chaos.test\r\nTo: \(name)\r\nSubject: Message \(state.number)\r
        Message-ID: <\(uidl).\(name)>\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n\r\n
        """
      for line in 0..<lines {
        text += line % 7 == 3 ? ".dots \(line)\r\n" : "Line \(line) of \(uidl), nothing more.\r\n"
      }
      let message = OfferedMessage(uidl: uidl, octets: Array(text.utf8))
      state.present.append(message)
      state.offered[uidl] = message.hash
    }
  }

  /// What a session that logs in now sees.
  var present: [OfferedMessage] { state.withLock(\.present) }

  /// A session removes messages in its update state.
  func remove(_ uidls: Set<String>) { state.withLock { $0.present.removeAll { uidls.contains($0.uidl) } } }

  /// Everything ever offered: unique id and SHA-256.
  var offered: [String: [UInt8]] { state.withLock(\.offered) }
}
