# SPDX-License-Identifier: Apache-2.0
# Digests, ciphers and deterministic signatures; rsa.pem and ed25519.pem are given, so both sides sign with the same keys.
set -e
openssl version | cut -d' ' -f1,2
for d in md5 sha1 sha224 sha256 sha384 sha512 sha512-256 sha3-256 sha3-512 blake2b512 blake2s256 sm3 ripemd160; do
	openssl dgst -$d data.small 2>/dev/null || echo "$d is not there"
done
openssl dgst -sha256 -hmac secret data.small
key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
iv=000102030405060708090a0b0c0d0e0f
for c in aes-128-cbc aes-256-cbc aes-128-ctr aes-256-ctr aes-256-cfb aes-256-ofb camellia-256-cbc aria-256-cbc chacha20 des-ede3-cbc sm4-cbc; do
	case $c in
	aes-128* | sm4*) k=$(echo $key | cut -c1-32) ;;
	des-ede3*) k=$(echo $key | cut -c1-48) ;;
	*) k=$key ;;
	esac
	v=$iv
	[ $c != des-ede3-cbc ] || v=$(echo $iv | cut -c1-16)
	openssl enc -$c -K $k -iv $v -in data.small -out c.out
	openssl enc -d -$c -K $k -iv $v -in c.out | cmp - data.small
	echo "$c $(sha256sum <c.out)"
done
openssl dgst -sha256 -sign rsa.pem -out rsa.sig data.small
sha256sum rsa.sig
openssl rsa -in rsa.pem -pubout -out rsa.pub 2>/dev/null
openssl dgst -sha256 -verify rsa.pub -signature rsa.sig data.small
openssl pkeyutl -sign -rawin -inkey ed25519.pem -in data.small -out ed.sig
sha256sum ed.sig
openssl pkey -in ed25519.pem -pubout -out ed.pub
openssl pkeyutl -verify -rawin -pubin -inkey ed.pub -in data.small -sigfile ed.sig
openssl ecparam -name prime256v1 -genkey -noout -out ec.pem
openssl dgst -sha256 -sign ec.pem -out ec.sig data.small
openssl ec -in ec.pem -pubout -out ec.pub 2>/dev/null
openssl dgst -sha256 -verify ec.pub -signature ec.sig data.small
openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt pass:password -kdfopt salt:salt -kdfopt iter:5000 PBKDF2
openssl kdf -keylen 32 -kdfopt pass:password -kdfopt salt:salt -kdfopt n:1024 -kdfopt r:8 -kdfopt p:1 SCRYPT
openssl prime -hex ffffffffffffffc5
