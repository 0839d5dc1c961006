import MailProtocols
import PostriderCore
import Synchronization

extension SendStore {
  /// A stored message that is read, piece by piece, while it is sent. A small one was read when it was claimed.
  func message(_ content: StoredMessageContent) -> SMTPMessage {
    let reader = StoredBody(self, content)
    return SMTPMessage(
      sizeOctets: content.sizeOctets, encoding: content.encoding,
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
  private let content: StoredMessageContent
  private let state: Mutex<State>

  init(_ store: any SendStore, _ content: StoredMessageContent) {
    self.store = store
    self.content = content
    state = Mutex(State(first: content.first.octets, left: content.sizeOctets, place: content.first.next))
  }

  func next() async throws -> [UInt8]? {
    if let first = takeFirst() { return first }
    let (place, left) = state.withLock { ($0.place, $0.left) }
    // Not asked for what is known not to be there: a small message costs no question more.
    guard left > 0, let piece = try await store.piece(of: content, at: place) else { return nil }
    state.withLock {
      $0.place = piece.next
      $0.left -= Int64(piece.octets.count)
    }
    return piece.octets
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
