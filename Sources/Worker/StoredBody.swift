import MailProtocols
import PostriderCore
import Synchronization

extension SendStore {
  /// A claimed message that is read, piece by piece, while it is sent. A small one was read when it was claimed.
  ///
  /// Before its last octets are handed out the store knows that they may leave: a session that dies earlier has delivered
  /// nothing, whether they travel by DATA or by BDAT.
  func octets(of message: ClaimedMessage, writer: SessionGuard) -> SMTPMessage {
    let reader = StoredBody(self, message, writer)
    return SMTPMessage(
      sizeOctets: message.content.sizeOctets, encoding: message.content.encoding,
      octets: AsyncThrowingStream { try await reader.next() })
  }
}

/// How far a stored message is read. Asked by one caller, one piece after the other.
private final class StoredBody: Sendable {
  private struct State {
    var first: [UInt8]?
    var left: Int64
    var place: ContentPlace
  }

  private let store: any SendStore
  private let message: ClaimedMessage
  private let writer: SessionGuard
  private let state: Mutex<State>

  init(_ store: any SendStore, _ message: ClaimedMessage, _ writer: SessionGuard) {
    self.store = store
    self.message = message
    self.writer = writer
    let content = message.content
    state = Mutex(State(first: content.first.octets, left: content.sizeOctets, place: content.first.next))
  }

  func next() async throws -> [UInt8]? {
    let octets: [UInt8]
    if let first = takeFirst() {
      octets = first
    } else {
      let (place, left) = state.withLock { ($0.place, $0.left) }
      // Not asked for what is known not to be there: a small message costs no question more.
      guard left > 0, let piece = try await store.piece(of: message.content, at: place) else { return nil }
      state.withLock {
        $0.place = piece.next
        $0.left -= Int64(piece.octets.count)
      }
      octets = piece.octets
    }
    if state.withLock({ $0.left <= 0 }) { try await store.beginHandover(of: message.id, writer: writer) }
    return octets
  }

  private func takeFirst() -> [UInt8]? {
    state.withLock { state in
      guard let first = state.first else { return nil }
      state.first = nil
      state.left -= Int64(first.count)
      return first
    }
  }
}
