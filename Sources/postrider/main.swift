import Hummingbird
import AsyncHTTPClient
import NIOSSL
import Subprocess
import Configuration
import ArgumentParser
import Crypto
import Metrics
print("hi")
