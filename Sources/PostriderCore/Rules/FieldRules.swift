/// Gathers what is wrong with a request, so that all of it is reported at once.
public struct FieldProblems: Sendable {
  /// What was found so far.
  public private(set) var problems: [FieldProblem] = []

  /// Nothing found yet.
  public init() {}

  /// Notes a wrong field.
  public mutating func add(_ pointer: String, _ code: String, _ message: String) {
    problems.append(FieldProblem(pointer, code, message))
  }

  /// Notes what was found elsewhere.
  public mutating func add(_ found: [FieldProblem]) { problems += found }

  /// Checks the length and that no control character is in a text that may reach a command or a log.
  public mutating func check(
    _ text: String, at pointer: String, maximum: Int, minimum: Int = 0, allowsNewlines: Bool = false
  ) {
    if text.count < minimum { add(pointer, "required", "must not be empty") }
    if text.count > maximum { add(pointer, "too-long", "must have at most \(maximum) characters, has \(text.count)") }
    let bad = text.unicodeScalars.contains {
      ($0.value < 0x20 && !(allowsNewlines && ($0 == "\n" || $0 == "\r" || $0 == "\t"))) || $0.value == 0x7F
    }
    if bad { add(pointer, "control-character", "must not contain control characters such as CR, LF or NUL") }
  }

  /// Checks a number's range.
  public mutating func check(_ number: Int, at pointer: String, in range: ClosedRange<Int>) {
    if !range.contains(number) {
      add(pointer, "out-of-range", "must be from \(range.lowerBound) to \(range.upperBound), is \(number)")
    }
  }

  /// Throws ``StoreError/invalid(_:)`` when anything was found.
  public func throwIfAny() throws(StoreError) {
    if !problems.isEmpty { throw .invalid(problems) }
  }
}

/// The rules of an e-mail address as stored on a mailbox (RFC 5321 section 4.1.2, without quoted local parts).
public enum AddressRules {
  /// Notes what is wrong with an address.
  ///
  /// - Parameter isOthers: whether it is an address that somebody else chose, to which mail is sent. Of one's own none may
  ///   pass for another one.
  public static func check(
    _ address: String, at pointer: String, isOthers: Bool = false, _ problems: inout FieldProblems
  ) {
    problems.check(address, at: pointer, maximum: 254, minimum: 1)
    let parts = address.split(separator: "@", omittingEmptySubsequences: false)
    let atextExtra = "!#$%&'*+-/=?^_`{|}~."
    let localGood: Bool
    if parts.count == 2, let local = parts.first, (1...64).contains(local.utf8.count) {
      localGood =
        !local.hasPrefix(".") && !local.hasSuffix(".") && !local.contains("..")
        && local.allSatisfy { $0.isLetter || $0.isNumber || atextExtra.contains($0) }
    } else {
      localGood = false
    }
    let domainGood = parts.count == 2 && HostRules.isHostName(parts[1])
    if !address.isEmpty && !(localGood && domainGood) {
      problems.add(pointer, "not-an-address", "must be an e-mail address such as support@example.com")
    } else if !isOthers, address.split(whereSeparator: { $0 == "@" || $0 == "." }).contains(where: LookAlikes.has) {
      problems.add(
        pointer, "look-alike",
        "has characters that look like others: letters of two alphabets side by side, of another width, or with marks of "
          + "their own. Type it instead of copying it")
    }
  }
}

extension AddressRules {
  /// Each address once, whatever its case, in the order given.
  public static func distinct(_ addresses: [String]) -> [String] {
    var seen: Set<String> = []
    return addresses.filter { seen.insert($0.lowercased()).inserted }
  }
}

/// The rules of a Message-ID (RFC 5322 section 3.6.4), given with or without its angle brackets.
public enum MessageIDRules {
  /// Notes what is wrong with a Message-ID.
  public static func check(_ text: String, at pointer: String, _ problems: inout FieldProblems) {
    let id = bare(text)
    let isGood =
      (3...320).contains(id.utf8.count) && id.contains("@")
      && id.utf8.allSatisfy { (0x21...0x7E).contains($0) && !"<>,;()\"".utf8.contains($0) }
    if !isGood {
      problems.add(pointer, "not-a-message-id", "must be a Message-ID such as <1234@example.com>")
    }
  }

  /// Without the angle brackets.
  public static func bare(_ text: String) -> String {
    text.hasPrefix("<") && text.hasSuffix(">") && text.count > 1 ? String(text.dropFirst().dropLast()) : text
  }
}

/// The rules of a server's location.
public enum HostRules {
  /// Whether it is a host name (RFC 1123, underscores allowed, at most 253 characters) or a literal IP address.
  public static func isHost(_ text: some StringProtocol) -> Bool { isHostName(text) || isIPv6(text) }

  /// Whether it is a host name or an IPv4 address.
  public static func isHostName(_ text: some StringProtocol) -> Bool {
    guard (1...253).contains(text.utf8.count) else { return false }
    return text.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { label in
      (1...63).contains(label.utf8.count) && !label.hasPrefix("-") && !label.hasSuffix("-")
        && label.allSatisfy {
          ($0.isASCII && ($0.isLetter || $0.isNumber)) || $0 == "-" || $0 == "_" || !$0.isASCII && $0.isLetter
        }
    }
  }

  private static func isIPv6(_ text: some StringProtocol) -> Bool {
    text.contains(":") && text.utf8.count <= 45 && text.allSatisfy { $0.isHexDigit || $0 == ":" || $0 == "." }
  }
}
