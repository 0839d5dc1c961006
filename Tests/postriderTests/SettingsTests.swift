import Foundation
import PostriderCore
import Testing

@testable import postrider

@Suite("Where the API is found")
struct SettingsTests {
  private func find(_ arguments: [String] = [], _ environment: [String: String] = [:]) throws -> ClientSettings {
    try ClientSettings.find(
      try ClientOptions.parse(arguments),
      environment: ["POSTRIDER_DATA": "/nonexistent"].merging(environment) { _, new in new })
  }

  private func write(_ text: String, _ path: String, mode: Int = 0o600) {
    #expect(
      FileManager.default.createFile(atPath: path, contents: Data(text.utf8), attributes: [.posixPermissions: mode]))
  }

  @Test func optionsGoBeforeTheEnvironment() throws {
    let settings = try find(
      ["--api-url", "http://a:1/", "--token", "t1"], ["POSTRIDER_API_URL": "http://b:1", "POSTRIDER_TOKEN": "t2"])
    #expect(settings.url == "http://a:1")
    #expect(settings.token.revealed == "t1")
    #expect(settings.source == "--api-url")
    #expect(try find([], ["POSTRIDER_API_URL": "http://b:1/api/v1", "POSTRIDER_TOKEN": "t2"]).url == "http://b:1")
  }

  @Test func theFileOfARunningServerIsFound() async throws {
    try await withFolder { (folder: String) async throws in
      write("# dev\nPOSTRIDER_API_URL=http://127.0.0.1:9\nPOSTRIDER_TOKEN=from=file\n", "\(folder)/cli.env")
      for variables in [["POSTRIDER_DATA": folder], ["POSTRIDER_CLI_ENV": "\(folder)/cli.env"]] {
        let settings = try find([], variables)
        #expect(settings.url == "http://127.0.0.1:9")
        #expect(settings.token.revealed == "from=file")
        #expect(settings.source == "\(folder)/cli.env")
        #expect(settings.warnings == [])
      }
    }
  }

  @Test func quotesInTheFileAreTakenOff() async throws {
    try await withFolder { (folder: String) async throws in
      for file in [
        "POSTRIDER_API_URL='http+unix://%2Frun%2Fa.sock'\nPOSTRIDER_TOKEN='a=b&c'\n",
        "POSTRIDER_API_URL=\"http+unix://%2Frun%2Fa.sock\"\r\nPOSTRIDER_TOKEN=\"a=b&c\"\r\n",
      ] {
        write(file, "\(folder)/cli.env")
        let settings = try find([], ["POSTRIDER_DATA": folder])
        #expect(settings.url == "http+unix://%2Frun%2Fa.sock")
        #expect(settings.token.revealed == "a=b&c")
      }
    }
  }

  @Test func aShellReadsTheFilesAsWeDo() async throws {
    let values = [
      "URL": "postgresql:///postrider?host=/run/a b&user=x", "QUOTES": #"it's "$HOME" `id` \n \\ # !"#, "EMPTY": "",
      "UMLAUT": "Zürich",
    ]
    try await withFolder { (folder: String) async throws in
      for name in [ClusterFile.cluster, ClusterFile.cli] {
        try ClusterFile.write(values, to: name, in: folder)
        #expect(try ClusterFile.read(in: folder, name: name) == values)
        for (variable, value) in values {
          let shell = Process()
          shell.executableURL = URL(fileURLWithPath: "/bin/sh")
          shell.arguments = ["-c", ". \(folder)/\(name) && printf %s \"$\(variable)\""]
          let pipe = Pipe()
          shell.standardOutput = pipe
          try shell.run()
          let output = try pipe.fileHandleForReading.readToEnd() ?? Data()
          #expect(String(decoding: output, as: UTF8.self) == value)
        }
      }
    }
  }

  @Test(
    "values written by hand",
    arguments: [
      ("plain", "plain"), ("'a'b\"c\"", "abc"), (#"a\ b"#, "a b"), (#""a\"b\c""#, #"a"b\c"#), ("'open", "'open"),
    ])
  func words(word: String, value: String) {
    #expect(EnvironmentFile.unquoted(word[...]) == value)
  }

  @Test func aFileOthersCanReadIsPointedOut() async throws {
    try await withFolder { (folder: String) async throws in
      write("POSTRIDER_API_URL=http://127.0.0.1:9\nPOSTRIDER_TOKEN=t\n", "\(folder)/cli.env", mode: 0o644)
      #expect(try find([], ["POSTRIDER_DATA": folder]).warnings.count == 1)
    }
  }

  @Test func theFilesTokenIsNeverSentElsewhere() async throws {
    try await withFolder { (folder: String) async throws in
      write("POSTRIDER_API_URL=http://127.0.0.1:9\nPOSTRIDER_TOKEN=t\n", "\(folder)/cli.env")
      let error = #expect(throws: ClientError.self) {
        try find(["--api-url", "http://elsewhere:9"], ["POSTRIDER_DATA": folder])
      }
      #expect(error?.exitCode == 64)
      #expect(try find(["--api-url", "http://127.0.0.1:9/"], ["POSTRIDER_DATA": folder]).token.revealed == "t")
    }
  }

  @Test func tokensComeFromFilesToo() async throws {
    try await withFolder { (folder: String) async throws in
      write("secret-token\n", "\(folder)/token")
      let url = ["--api-url", "http://a:1"]
      #expect(try find(url, ["POSTRIDER_TOKEN_FILE": "\(folder)/token"]).token.revealed == "secret-token")
      #expect(try find(url + ["--token-file", "\(folder)/token"]).token.revealed == "secret-token")
      #expect(throws: ClientError.self) { try find(url + ["--token-file", "\(folder)/none"]) }
      #expect(throws: ClientError.self) { try find(url, ["POSTRIDER_TOKEN": "two words"]) }
    }
  }

  @Test func nothingGivenNamesEveryPlaceLookedAt() throws {
    let error = #expect(throws: ClientError.self) { try find() }
    #expect(error?.exitCode == 69)
    let words = error?.words ?? ""
    for place in ["--api-url", "POSTRIDER_API_URL", "/nonexistent/cli.env", "postrider dev"] {
      #expect(words.contains(place))
    }
  }

  @Test("URLs", arguments: ["ftp://a", "a:1", "http://", "http://a b", "unix:/x"])
  func badURLs(url: String) {
    let error = #expect(throws: ClientError.self) { try find(["--api-url", url, "--token", "t"]) }
    #expect(error?.exitCode == 64)
  }

  @Test func dataDirectories() {
    #expect(ClientSettings.dataDirectory(["POSTRIDER_DATA": "/x"]) == "/x")
    let own = ClientSettings.dataDirectory(["XDG_STATE_HOME": "/s", "HOME": "/h"])
    #expect(own == (geteuid() == 0 ? "/var/lib/postrider" : "/s/postrider"))
  }

  @Test func settingsDoNotPrintTheToken() throws {
    #expect(!"\(try find(["--api-url", "http://a:1", "--token", "hunter2"]))".contains("hunter2"))
  }
}

@Suite("Where Redis is")
struct RedisSettingsTests {
  private func load(_ environment: [String: String]) async throws -> Settings {
    try await Settings.load(environment: environment)
  }

  private func problem(_ environment: [String: String]) async -> String {
    do {
      _ = try await load(environment).queueConfiguration()
    } catch {
      return "\(error)"
    }
    return ""
  }

  @Test("every kind of URL is taken, with what stands beside it, also from files")
  func kinds() async throws {
    for url in [
      "redis://h", "unix:///s", "redis-sentinel://a,b/m", "redis-cluster://a,b", "valkey://h", "rediss://h",
      "rediss-sentinel://a/m", "rediss-cluster://a",
    ] {
      #expect(await problem(["POSTRIDER_REDIS_URL": url]).isEmpty, "\(url)")
    }
    try await withFolder { (folder: String) async throws in
      for (name, text) in [("password", "s3cret\n"), ("sentinel", "s3cret too\n")] {
        #expect(FileManager.default.createFile(atPath: "\(folder)/\(name)", contents: Data(text.utf8)))
      }
      let settings = try await load([
        "POSTRIDER_REDIS_URL": "redis-sentinel://a,b/m", "POSTRIDER_REDIS_USER": "post",
        "POSTRIDER_REDIS_PASSWORD_FILE": "\(folder)/password",
        "POSTRIDER_REDIS_SENTINEL_PASSWORD_FILE": "\(folder)/sentinel", "POSTRIDER_QUEUE_SHARDS": "4",
      ])
      #expect(settings.text(.redisPassword) == "s3cret")
      #expect(settings.text(.redisSentinelPassword) == "s3cret too")
      #expect(try settings.queueConfiguration().shards == 4)
    }
  }

  @Test("what does not fit together is told without secrets")
  func problems() async {
    #expect(
      await problem(["POSTRIDER_REDIS_URL": "redis://:s3cret@h", "POSTRIDER_REDIS_PASSWORD": "s3cret"])
        .contains("remove one"))
    #expect(await problem(["POSTRIDER_REDIS_URL": "redis-sentinel://:s3cret@a,b"]).contains("names no master"))
    #expect(await problem(["POSTRIDER_REDIS_URL": "mysql://:s3cret@a"]).contains("must begin with redis://"))
    #expect(await problem(["POSTRIDER_REDIS_URL": "redis://h", "POSTRIDER_QUEUE_SHARDS": "65"]).contains("1…64"))
    #expect(
      await problem(["POSTRIDER_REDIS_URL": "rediss://h", "POSTRIDER_REDIS_TLS_CA_FILE": "/nonexistent/ca.pem"])
        .contains("/nonexistent/ca.pem"))
    #expect(await !problem(["POSTRIDER_REDIS_URL": "redis://:s3cret@h:x"]).contains("s3cret"))
  }
}
