import ArgumentParser

/// Options of every administration command.
struct ClientOptions: ParsableArguments {
  @Option(
    name: [.customLong("api-url"), .customLong("api")],
    help: ArgumentHelp(
      "Where the API is: http://…, https://… or http+unix://… with the socket's path percent-encoded.",
      discussion: """
        Default: POSTRIDER_API_URL, then the API signed in to with `postrider login`, then the file named by \
        POSTRIDER_CLI_ENV or cli.env in the data directory, which a running `postrider dev` keeps. Example: --api-url http+unix://%2Frun%2Fpostrider%2Fapi.sock
        """, valueName: "url"))
  var apiURL: String?

  @Option(
    help: ArgumentHelp(
      "The bearer token.",
      discussion: """
        Every user of the machine can read it in the list of processes while the command runs: prefer \
        POSTRIDER_TOKEN, or POSTRIDER_TOKEN_FILE and --token-file, which name a file that holds it.
        """, valueName: "token"))
  var token: String?

  @Option(
    help: ArgumentHelp("A file that holds the token. Example: --token-file /run/secrets/token", valueName: "file"),
    completion: .file())
  var tokenFile: String?

  @Flag(
    help: ArgumentHelp(
      "Print JSON for programs: the API's own values, keys sorted, dates as ISO 8601 in UTC.",
      discussion: "Messages for people go to standard error. Example: postrider mailbox list --json | jq .total"))
  var json = false

  func validate() throws {
    if token != nil && tokenFile != nil { throw ValidationError("Give either --token or --token-file, not both.") }
  }
}
