#compdef caisson
# SPDX-License-Identifier: Apache-2.0
# zsh completion for caisson. What can be completed is known by the program: `caisson __complete WORD...` (src/cli/complete.c).

local line word
local -a found files space

for line in "${(@f)$(${~words[1]} __complete "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}"; do
	case $line in
	'') ;;
	:files) files=(_files) ;;
	:dirs) files=(_files -/) ;;
	:nospace) space=(-S '') ;;
	*)
		# "word:explanation" is what _describe wants
		word=${line%%$'\t'*}
		found+=("${word//:/\\:}${line[$#word+1]:+:${line[$#word+2,-1]}}")
		;;
	esac
done

(( $#found )) && _describe -t words 'caisson' found "${(@)space}"
if (( $#files )); then
	[[ $PREFIX == --*=* ]] && compset -P '*='
	$files
fi
(( $#found || $#files ))
