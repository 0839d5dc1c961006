import PostriderCore

/// The API's error body (RFC 9457).
struct Problem: Hashable, Sendable, Codable {
  var type: String?
  var title: String?
  var status: Int?
  var detail: String?
  var code: String?
  var errors: [FieldProblem]?
  /// From the header of that name, where there is one.
  var retryAfterSeconds: Int?
}

/// What stopped a command, with the words and the exit code for it.
enum ClientError: Error, Hashable, Sendable {
  /// Nothing was said about where the API is, or nothing answers there. `tried` lists the places looked at.
  case unreachable(reason: String, tried: [String])
  /// The API said no.
  case refused(Problem, status: Int)
  /// Something answered, but not as the API does.
  case notTheAPI(url: String, reason: String)
  /// An option or argument that only shows to be wrong now.
  case usage(String)
  /// There is no such thing, or the command cannot do what was asked.
  case failed(String)
  /// The reader of standard output has gone: nothing more to say.
  case outputClosed
  /// A person pressed Ctrl-C at a question.
  case interrupted

  /// 69 (`EX_UNAVAILABLE`) when trying again later may help, 64 (`EX_USAGE`) for a wrong call, else 1.
  var exitCode: Int32 {
    switch self {
    case .unreachable: 69
    case .refused(_, let status): status == 503 ? 69 : 1
    case .usage: 64
    case .notTheAPI, .failed: 1
    case .outputClosed: 0
    // As a shell counts a program ended by SIGINT.
    case .interrupted: 130
    }
  }

  /// What to tell people; `nil` for nothing.
  var words: String? {
    switch self {
    case .unreachable(let reason, let tried):
      """
      the API cannot be reached: \(reason)
      \(tried.map { "  tried: \($0)\n" }.joined())\
      Start it with `postrider dev` (everything on this machine) or `postrider api`, or name a running one with \
      --api-url or POSTRIDER_API_URL.
      """
    case .refused(let problem, let status): Self.words(problem, status: status)
    case .notTheAPI(let url, let reason): "\(url) does not answer as Postrider's API: \(reason)"
    case .usage(let text), .failed(let text): text
    case .outputClosed, .interrupted: nil
    }
  }

  private static func words(_ problem: Problem, status: Int) -> String {
    let title = problem.title ?? "the API refused the request"
    var text = problem.detail ?? title
    // The API's sentence ends with the first of the values that are listed below.
    if let first = problem.errors?.first, text.hasSuffix(": \(first).") {
      text = "\(text.dropLast(": \(first).".count))"
    }
    if let code = problem.code, code != "about:blank" {
      text += " (\(status), \(code))"
    } else {
      text += " (\(status))"
    }
    for error in problem.errors ?? [] {
      text += "\n  \(fieldWords(error.pointer)): \(error.message)"
    }
    switch status {
    case 401 where problem.code == "sign-in-refused": break
    case 401:
      text +=
        "\nSign in with `postrider login`, or give a valid token with POSTRIDER_TOKEN, POSTRIDER_TOKEN_FILE or "
        + "--token-file."
    case 429:
      if let seconds = problem.retryAfterSeconds { text += "\nTry again in \(Words.count(seconds, "second"))." }
    case 403 where problem.code == "insecure-channel":
      text += "\nPasswords are only taken over TLS or a Unix socket: use an https:// or http+unix:// API URL."
    case 503: text += "\nThe API runs, but what it needs does not. Try again in a moment."
    default: break
    }
    return Terminal.safe(text, keepsNewlines: true)
  }

  /// A JSON pointer in words: `/incoming/maximumPort` becomes "incoming maximum port".
  static func fieldWords(_ pointer: String) -> String {
    let words = pointer.split(separator: "/").map { part in
      var result = ""
      for character in part.replacing("~1", with: "/").replacing("~0", with: "~") {
        if character.isUppercase, let last = result.last, last.isLowercase { result += " " }
        result += character.isUppercase && result.last == " " ? character.lowercased() : String(character)
      }
      return result
    }
    return words.isEmpty ? "the request" : words.joined(separator: " ")
  }
}
