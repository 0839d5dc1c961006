import CGSASL
import PostriderCore
import Synchronization

/// One client session of libgsasl. Its steps may take long (hashing, a KDC) and belong on a thread of ``SASLThreads``.
final class GSASLSession: Sendable {
  /// What the library says that is not success.
  struct LibraryError: Error, Hashable, Sendable {
    let code: Int32

    func isOne(of codes: Gsasl_rc...) -> Bool { codes.contains { Int32($0.rawValue) == code } }

    /// The library's words; no value of the session stands in them.
    var text: String { gsasl_strerror(code).map { String(cString: $0) } ?? "error \(code)" }
  }

  private struct Handle: ~Copyable {
    let session: OpaquePointer
    deinit { gsasl_finish(session) }
  }

  /// The library itself: only read after its start, but Swift cannot know that.
  private struct Library: ~Copyable {
    let context: OpaquePointer?

    init() {
      var context: OpaquePointer?
      // Fails only without memory; then every mechanism is missing.
      self.context = gsasl_init(&context) == Int32(GSASL_OK.rawValue) ? context : nil
    }
  }

  private static let library = Mutex(Library())

  private let handle: Mutex<Handle>

  /// Begins a session with what it may ask for. Throws `profile.not-supported` where the library lacks the mechanism.
  init(_ mechanism: String, _ properties: [(Gsasl_property, String)]) throws(Failure) {
    let session = Self.library.withLock { library -> OpaquePointer? in
      var session: OpaquePointer?
      guard let context = library.context,
        gsasl_client_start(context, mechanism, &session) == Int32(GSASL_OK.rawValue)
      else { return nil }
      return session
    }
    guard let session else {
      throw Failure(.profileNotSupported, context: "this worker's libgsasl lacks \(mechanism)")
    }
    for (property, value) in properties { gsasl_property_set(session, property, value) }
    handle = Mutex(Handle(session: session))
  }

  /// Gives a value that a later step may ask for.
  func set(_ property: Gsasl_property, _ value: String) {
    _ = handle.withLock { gsasl_property_set($0.session, property, value) }
  }

  /// A value that a step left; `nil` where there is none.
  func value(of property: Gsasl_property) -> String? {
    handle.withLock { gsasl_property_fast($0.session, property).map { String(cString: $0) } }
  }

  /// Hands over a challenge, none at the start, and returns the answer.
  func step(_ challenge: [UInt8]) -> Result<SASLOutput, LibraryError> {
    handle.withLock { handle in
      var output: UnsafeMutablePointer<CChar>?
      var count = 0
      let code = challenge.withUnsafeBytes { octets in
        gsasl_step(handle.session, octets.bindMemory(to: CChar.self).baseAddress, octets.count, &output, &count)
      }
      defer { gsasl_free(output) }
      guard code == Int32(GSASL_OK.rawValue) || code == Int32(GSASL_NEEDS_MORE.rawValue) else {
        return .failure(LibraryError(code: code))
      }
      let message = [UInt8](UnsafeRawBufferPointer(start: output, count: output == nil ? 0 : count))
      return .success(SASLOutput(message: message, isFinished: code == Int32(GSASL_OK.rawValue)))
    }
  }
}
