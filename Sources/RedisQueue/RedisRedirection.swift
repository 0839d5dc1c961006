/// What a node of a Redis Cluster says instead of an answer.
enum RedisRedirection: Hashable, Sendable {
  /// The slot lives there from now on. The host is empty when it is the one that was asked.
  case moved(host: String, port: Int)
  /// This key is on its way there; only the next command goes there.
  case ask(host: String, port: Int)
  /// The keys of the command are split between two nodes at the moment.
  case tryAgain

  /// Reads an error reply; `nil` when it is none of these.
  init?(_ text: String) {
    let words = text.split(separator: " ")
    switch words.first {
    case "TRYAGAIN": self = .tryAgain
    case "MOVED", "ASK":
      // The address may be an IPv6 one without brackets.
      guard words.count >= 3, let colon = words[2].lastIndex(of: ":"),
        let port = Int(words[2][words[2].index(after: colon)...])
      else { return nil }
      let host = String(words[2][..<colon])
      self = words[0] == "MOVED" ? .moved(host: host, port: port) : .ask(host: host, port: port)
    default: return nil
    }
  }
}
