// What libFuzzer calls with each input (docs: ops/fuzz). Built only with POSTRIDER_FUZZ set; see Package.swift.
import Foundation

/// The parsers that can be fuzzed; `POSTRIDER_FUZZ_TARGET` names one.
private let target: @Sendable (UnsafeRawBufferPointer) -> Void = {
  switch ProcessInfo.processInfo.environment["POSTRIDER_FUZZ_TARGET"] {
  case "pop3": return fuzzPOP3
  case "smtp": return fuzzSMTP
  case "header": return fuzzHeader
  case let other:
    FileHandle.standardError.write(Data("POSTRIDER_FUZZ_TARGET is \(other ?? "not set"): pop3, smtp or header\n".utf8))
    exit(64)
  }
}()

/// Looks at one input; a trap is a finding.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ octets: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  target(UnsafeRawBufferPointer(start: octets, count: count))
  return 0
}

/// `int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*callback)(const uint8_t *, size_t))` of libFuzzer.
@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
  _ argumentCount: UnsafeMutablePointer<CInt>,
  _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?>,
  _ callback: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

/// SwiftPM makes `main` of an executable an alias of this name, so that libFuzzer's own `main` is never linked.
@_cdecl("postrider_fuzz_main")
public func fuzzMain(_ count: CInt, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
  var count = count
  var arguments = arguments
  return runDriver(&count, &arguments, fuzzOneInput)
}
