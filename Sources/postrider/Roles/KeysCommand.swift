import ArgumentParser
import Foundation
import PostgresStore
import PostriderCore

/// `postrider keys`
struct KeysCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "keys", abstract: "The key ring that stored passwords are encrypted with.",
    discussion: """
      A ring is a file of keys, one on each line: the first encrypts, all decrypt. A new key comes in without a pause:
        postrider keys add --file /etc/postrider/keys              the new key decrypts; give every process the file
        postrider keys promote ID --file /etc/postrider/keys       it encrypts; give every process the file again
        postrider keys rotate                                      what is stored is encrypted anew, while all goes on
        postrider keys retire OLD --file /etc/postrider/keys       the old key goes, once nothing needs it
      """,
    subcommands: [Generate.self, Add.self, Promote.self, Rotate.self, Status.self, Retire.self])

  /// `postrider keys generate`
  struct Generate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Makes a key ring with one fresh key.",
      discussion: """
        Without it stored passwords cannot be read: back it up, apart from the database.

        Examples:
          postrider keys generate                               prints it
          postrider keys generate --file /etc/postrider/keys    writes it (mode 0600)
        """)

    @Option(
      name: .long, help: ArgumentHelp("Write to this file; refuses to replace one.", valueName: "file"),
      completion: .file())
    var file: String?

    @Flag(name: .long, help: "With --file: do nothing when the file is there already.")
    var ifMissing = false

    @Option(name: .long, help: "With --file: the file's mode, in octal.")
    var mode = "0600"

    func validate() throws {
      guard Int(mode, radix: 8).map({ (0...0o777).contains($0) }) == true else {
        throw ValidationError("--mode must be an octal file mode such as 0600")
      }
    }

    func run() async throws {
      let text = KeyRing.generate().text.revealed
      guard let file else {
        print(text, terminator: text.hasSuffix("\n") ? "" : "\n")
        return
      }
      if FileManager.default.fileExists(atPath: file) {
        if ifMissing { return }
        throw ValidationError("\(file) exists; a key ring is never replaced, because what it encrypted would be lost")
      }
      guard
        FileManager.default.createFile(
          atPath: file, contents: Data(text.utf8), attributes: [.posixPermissions: Int(mode, radix: 8) ?? 0o600])
      else { throw ValidationError("cannot write \(file); check the directory and its rights") }
      print("Wrote \(file). Back it up: without it stored passwords cannot be read.")
    }
  }
}
