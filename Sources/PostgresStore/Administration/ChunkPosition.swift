import Synchronization

/// Which chunk of a content is read next. A stream's producer is called one at a time, but is not told a position.
final class ChunkPosition: Sendable {
  private let position = Mutex<Int64>(0)

  func next() -> Int64 {
    position.withLock { position in
      defer { position += 1 }
      return position
    }
  }
}
