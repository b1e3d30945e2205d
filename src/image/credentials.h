/* SPDX-License-Identifier: Apache-2.0 */
/* User and password for a registry, from where docker keeps them: $DOCKER_CONFIG/config.json or
 * ~/.docker/config.json, there in "auths" or with a credential helper ("credHelpers", "credsStore"). */
#ifndef IMAGE_CREDENTIALS_H
#define IMAGE_CREDENTIALS_H

/* host: the registry's name, "docker.io" or "localhost:5000". *user and *password are owned by the caller;
 * both NULL when there are none, or none that can be used. */
void credentials_find(const char *host, char **user, char **password);

#endif
