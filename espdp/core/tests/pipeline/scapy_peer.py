"""Seals and opens IPsec packets with scapy: one question a line on standard input, one answer a line on standard output.

Both are JSON; octets are written in hexadecimal. An answer has `packet`, or `lacks` with what scapy does not have, or `error`.
"""

import json
import sys

from scapy.config import conf
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import AH, ESP, SecurityAssociation

conf.verb = 0


def ip(octets):
    return IP(octets) if octets[0] >> 4 == 4 else IPv6(octets)


def what_scapy_lacks(ask):
    if ask["cipher"] is None:
        return "no such cipher"
    if ask["cipher"] == "AES-GCM" and ask["icv_len"] != 16:
        return "AES-GCM has ICVs of 16 octets only"
    if ask["integrity"] is None:
        return "no such integrity algorithm"
    if ask["protocol"] == "ESP" and ask["extended"] and ask["integrity"] != "NULL":
        return "the high half of sequence numbers is not covered by a separate ICV of ESP"
    return None


def association(ask):
    key = bytes.fromhex(ask["key"])
    integrity_key = bytes.fromhex(ask["integrity_key"])
    outer = bytes.fromhex(ask["tunnel"])
    is_esp = ask["protocol"] == "ESP"
    return SecurityAssociation(
        ESP if is_esp else AH,
        spi=ask["spi"],
        seq_num=ask["sequence"] & 0xFFFFFFFF,
        crypt_algo=ask["cipher"] if is_esp else None,
        crypt_key=key or None,
        crypt_icv_size=ask["icv_len"] if is_esp and ask["integrity"] == "NULL" else None,
        auth_algo=None if ask["integrity"] == "NULL" else ask["integrity"],
        auth_key=integrity_key or None,
        tunnel_header=ip(outer) if outer else None,
        nat_t_header=UDP(sport=4500, dport=4500) if ask["udp"] else None,
        esn_en=ask["extended"],
        esn=ask["sequence"] >> 32,
    )


def answer(ask):
    lacking = what_scapy_lacks(ask)
    if lacking:
        return {"lacks": lacking}
    packet = ip(bytes.fromhex(ask["packet"]))
    sa = association(ask)
    if ask["do"] == "seal":
        iv = bytes.fromhex(ask["iv"])
        result = sa.encrypt(packet, iv=iv) if ask["protocol"] == "ESP" else sa.encrypt(packet)
    else:
        result = sa.decrypt(packet)
    return {"packet": bytes(result).hex()}


for line in sys.stdin:
    try:
        reply = answer(json.loads(line))
    except Exception as error:  # Whatever goes wrong is the other side's to judge.
        reply = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(reply), flush=True)
