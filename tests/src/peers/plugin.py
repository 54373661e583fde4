"""A network driver and address manager for Docker's engine, as other people write them.

Usage: plugin.py SOCKET|HOST:PORT LOG CONTROL

Written from the description of the protocol alone. A network is a Linux bridge, an endpoint a pair of veths;
addresses come from 10.99.0.0/16 and fd99::/48 unless a pool is asked for. Driver options of a network: prefix=NAME
(of interfaces in sandboxes), gateway=none, routes=DESTINATION[@NEXTHOP][,...]. Option of a pool: ids=new, called
otherwise each time the plugin starts.

Each call becomes a line of JSON in LOG: method, request, answer. Lines of CONTROL, which is read at each call, make
the named method misbehave (with or without its subsystem; the first that fits counts):

    METHOD error TEXT       an error in the way of the protocol, and nothing done
    METHOD hang SECONDS     done and logged at once, answered late
    METHOD garbage          an answer that is no JSON, and nothing done
    METHOD close            no answer at all, and nothing done
    METHOD NUMBER [TEXT]    this status with this text, and nothing done
    METHOD answer JSON      done, but answered with this
"""

import hashlib
import ipaddress
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler

GENERIC = "com.docker.network.generic"
GATEWAY = "com.docker.network.gateway"
MEDIA_TYPE = "application/vnd.docker.plugins.v1.2+json"


class Refused(Exception):
    """What the caller is told went wrong."""


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"ip {' '.join(words)}: {done.stderr.strip()}")


def has_link(name):
    return os.path.exists(f"/sys/class/net/{name}")


class NetworkDriver:
    def __init__(self):
        self.networks = {}
        self.endpoints = {}

    def network(self, request):
        network = self.networks.get(request["NetworkID"])
        if network is None:
            raise Refused(f"no network {request['NetworkID']}")
        return network

    def endpoint(self, request):
        self.network(request)
        endpoint = self.endpoints.get(request["EndpointID"])
        if endpoint is None:
            raise Refused(f"no endpoint {request['EndpointID']}")
        return endpoint

    def GetCapabilities(self, request):
        return {"Scope": "local", "ConnectivityScope": "local"}

    def GwAllocCheck(self, request):
        return {"SkipIPv4": False, "SkipIPv6": False}

    def AllocateNetwork(self, request):
        return {"Options": {}}

    def FreeNetwork(self, request):
        return {}

    def CreateNetwork(self, request):
        network_id = request["NetworkID"]
        if network_id in self.networks:
            raise Refused(f"network {network_id} exists")
        bridge = f"pb-{network_id[:11]}"
        data = (request.get("IPv4Data") or []) + (request.get("IPv6Data") or [])
        gateways = [item["Gateway"] for item in data if item.get("Gateway")]
        ip("link", "add", bridge, "type", "bridge")
        try:
            for gateway in gateways:
                nodad = ["nodad"] if ":" in gateway else []
                ip("address", "add", gateway, "dev", bridge, *nodad)
            ip("link", "set", bridge, "up")
        except Refused:
            ip("link", "delete", bridge)
            raise
        options = (request.get("Options") or {}).get(GENERIC) or {}
        self.networks[network_id] = {"bridge": bridge, "gateways": gateways, "options": options}
        return {}

    def DeleteNetwork(self, request):
        network = self.network(request)
        if any(endpoint["network"] == request["NetworkID"] for endpoint in self.endpoints.values()):
            raise Refused(f"network {request['NetworkID']} has endpoints")
        if has_link(network["bridge"]):
            ip("link", "delete", network["bridge"])
        del self.networks[request["NetworkID"]]
        return {}

    def CreateEndpoint(self, request):
        network, endpoint_id = self.network(request), request["EndpointID"]
        if endpoint_id in self.endpoints:
            raise Refused(f"endpoint {endpoint_id} exists")
        given = (request.get("Interface") or {}).get("MacAddress")
        digest = hashlib.sha256(endpoint_id.encode()).hexdigest()
        mac = given or "02:99:" + ":".join(digest[at : at + 2] for at in range(0, 8, 2))
        host, inner = f"vh-{endpoint_id[:11]}", f"vp-{endpoint_id[:11]}"
        ip("link", "add", host, "type", "veth", "peer", "name", inner, "address", mac)
        try:
            ip("link", "set", host, "master", network["bridge"], "up")
        except Refused:
            ip("link", "delete", host)
            raise
        self.endpoints[endpoint_id] = {"network": request["NetworkID"], "host": host, "inner": inner}
        # Only what was not given may be answered.
        return {} if given else {"Interface": {"MacAddress": mac}}

    def EndpointOperInfo(self, request):
        return {"Value": {"host": self.endpoint(request)["host"]}}

    def DeleteEndpoint(self, request):
        endpoint = self.endpoint(request)
        # It is gone already where its other end went with a namespace.
        if has_link(endpoint["host"]):
            ip("link", "delete", endpoint["host"])
        del self.endpoints[request["EndpointID"]]
        return {}

    def Join(self, request):
        endpoint, network = self.endpoint(request), self.network(request)
        options = network["options"]
        prefix = options.get("prefix", "eth")
        answer = {"InterfaceName": {"SrcName": endpoint["inner"], "DstPrefix": prefix}}
        if options.get("gateway") == "none":
            answer["DisableGatewayService"] = True
        else:
            for gateway in reversed(network["gateways"]):
                key = "GatewayIPv6" if ":" in gateway else "Gateway"
                answer[key] = gateway.split("/")[0]
        answer["StaticRoutes"] = [route(text) for text in options.get("routes", "").split(",") if text]
        return answer

    def Leave(self, request):
        self.endpoint(request)
        return {}

    def ProgramExternalConnectivity(self, request):
        self.endpoint(request)
        return {}

    def RevokeExternalConnectivity(self, request):
        self.endpoint(request)
        return {}

    def DiscoverNew(self, request):
        return {}

    def DiscoverDelete(self, request):
        return {}


def route(text):
    destination, _, hop = text.partition("@")
    if hop:
        return {"Destination": destination, "RouteType": 0, "NextHop": hop}
    return {"Destination": destination, "RouteType": 1}


class IpamDriver:
    def __init__(self):
        self.pools = {}

    def pool(self, request):
        pool = self.pools.get(request["PoolID"])
        if pool is None:
            raise Refused(f"no pool {request['PoolID']}")
        return pool

    def GetCapabilities(self, request):
        return {"RequiresMACAddress": False, "RequiresRequestReplay": False}

    def GetDefaultAddressSpaces(self, request):
        return {"LocalDefaultAddressSpace": "peer-local", "GlobalDefaultAddressSpace": "peer-global"}

    def RequestPool(self, request):
        space = request.get("AddressSpace") or "peer-local"
        used = [pool["net"] for pool in self.pools.values() if pool["space"] == space]

        def is_free(net):
            return not any(net.version == other.version and net.overlaps(other) for other in used)

        if request.get("Pool"):
            net = ipaddress.ip_network(request["Pool"])
        else:
            base, length = ("fd99::/48", 64) if request.get("V6") else ("10.99.0.0/16", 24)
            nets = ipaddress.ip_network(base).subnets(new_prefix=length)
            net = next((net for net in nets if is_free(net)), None)
        if net is None or not is_free(net):
            raise Refused("no pool is left" if net is None else f"pool {net} overlaps another")
        part = ipaddress.ip_network(request["SubPool"]) if request.get("SubPool") else net
        if part.version != net.version or not part.subnet_of(net):
            raise Refused(f"{part} is not within {net}")
        pool_id = f"{space}/{net}"
        if (request.get("Options") or {}).get("ids") == "new":
            pool_id += f"#{os.getpid()}"
        self.pools[pool_id] = {"space": space, "net": net, "part": part, "taken": set()}
        return {"PoolID": pool_id, "Pool": str(net), "Data": {}}

    def ReleasePool(self, request):
        self.pool(request)
        del self.pools[request["PoolID"]]
        return {}

    def RequestAddress(self, request):
        pool = self.pool(request)
        is_gateway = (request.get("Options") or {}).get("RequestAddressType") == GATEWAY
        if request.get("Address"):
            address = ipaddress.ip_address(request["Address"])
            if address not in pool["net"]:
                raise Refused(f"{address} is not of {pool['net']}")
        else:
            part = pool["net"] if is_gateway else pool["part"]
            address = next((free for free in part.hosts() if free not in pool["taken"]), None)
        if address is None or address in pool["taken"]:
            raise Refused("no address is left" if address is None else f"{address} is taken")
        pool["taken"].add(address)
        return {"Address": f"{address}/{pool['net'].prefixlen}", "Data": {}}

    def ReleaseAddress(self, request):
        address = ipaddress.ip_address(request["Address"])
        if address not in self.pool(request)["taken"]:
            raise Refused(f"{address} is not taken")
        self.pool(request)["taken"].remove(address)
        return {}


class Plugin:
    def Activate(self, request):
        return {"Implements": ["NetworkDriver", "IpamDriver"]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    subsystems = {"Plugin": Plugin(), "NetworkDriver": NetworkDriver(), "IpamDriver": IpamDriver()}
    lock = threading.Lock()

    def do_POST(self):
        method = self.path.lstrip("/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = json.loads(body) if body.strip() else None
        verb, rest = misbehaviour(method)
        with self.lock:
            status, answer = self.decide(method, request, verb, rest)
            with open(sys.argv[2], "a") as log:
                log.write(json.dumps({"method": method, "request": request, "answer": answer}) + "\n")
        if verb == "hang":
            time.sleep(float(rest))
        if status is None:
            self.close_connection = True
            return
        text = answer if isinstance(answer, str) else json.dumps(answer)
        self.send_response(status)
        self.send_header("Content-Type", MEDIA_TYPE)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def decide(self, method, request, verb, rest):
        subsystem, _, name = method.partition(".")
        key = "Error" if subsystem == "IpamDriver" else "Err"
        if verb == "close":
            return None, None
        if verb == "garbage":
            return 200, '{"InterfaceName": garbage'
        if verb == "error":
            return 200, {key: rest}
        if verb.isdigit():
            return int(verb), rest or f"told to answer {verb}"
        act = getattr(self.subsystems.get(subsystem), name, None)
        if act is None or not name[:1].isupper():
            return 404, "404 page not found"
        try:
            answer = act(request or {})
        except (Refused, KeyError, ValueError) as error:
            return 200, {key: str(error)}
        return 200, json.loads(rest) if verb == "answer" else answer

    def log_message(self, *words):
        pass


def misbehaviour(method):
    """What CONTROL says of a method: a verb and the rest of the line."""
    try:
        lines = open(sys.argv[3]).read().splitlines()
    except FileNotFoundError:
        lines = []
    for line in lines:
        name, _, rest = line.strip().partition(" ")
        if name and name in (method, method.partition(".")[2]):
            verb, _, rest = rest.strip().partition(" ")
            return verb, rest
    return "", ""


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class TcpServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    if "/" not in sys.argv[1]:
        host, _, port = sys.argv[1].rpartition(":")
        TcpServer((host, int(port)), Handler).serve_forever()
    if os.path.exists(sys.argv[1]):
        os.unlink(sys.argv[1])
    Server(sys.argv[1], Handler).serve_forever()
