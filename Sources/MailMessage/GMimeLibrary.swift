import CGMime

/// The library's one-time start-up. GMime keeps process-wide tables (charsets, types), read-only afterwards.
enum GMimeLibrary {
  private static let started: Void = g_mime_init()

  /// Starts the library unless it runs; every entry point of the module calls it first.
  static func start() { _ = started }

  /// A stream over a copy of the octets; the caller owns it.
  static func memoryStream(_ bytes: [UInt8]) -> UnsafeMutablePointer<GMimeStream>? {
    bytes.withUnsafeBytes {
      g_mime_stream_mem_new_with_buffer($0.baseAddress?.assumingMemoryBound(to: CChar.self), $0.count)
    }
  }
}

/// Owns one reference of a GObject and gives it back at the end of the scope that holds it.
struct Owned<Object>: ~Copyable {
  let pointer: UnsafeMutablePointer<Object>

  init?(_ pointer: UnsafeMutablePointer<Object>?) {
    guard let pointer else { return nil }
    self.pointer = pointer
  }

  deinit { g_object_unref(UnsafeMutableRawPointer(pointer)) }
}
