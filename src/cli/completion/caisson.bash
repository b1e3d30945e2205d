# SPDX-License-Identifier: Apache-2.0
# bash completion for caisson. What can be completed is known by the program: `caisson __complete WORD...` (src/cli/complete.c).

_caisson() {
	local rest=${COMP_LINE:0:COMP_POINT} i between word last line
	local -a words=()

	# bash has cut words at '=' and ':'; put together what no blank stands between.
	for ((i = 0; i <= COMP_CWORD; i++)); do
		between=${rest%%[! $'\t']*}
		rest=${rest#"$between"}
		word=${COMP_WORDS[i]}
		[[ $i -lt COMP_CWORD && $rest == "$word"* ]] || word=$rest
		rest=${rest#"$word"}
		if [[ $i -gt 0 && -z $between && -n $word ]]; then
			words[${#words[@]} - 1]+=$word
		else
			words+=("$word")
		fi
	done
	last=${words[${#words[@]} - 1]}

	# Readline replaces only what follows the last of the characters that it cuts words at.
	local keep=
	[[ $last == *=* && $COMP_WORDBREAKS == *=* ]] && keep=${last%"${last##*=}"}
	[[ $last == *:* && $COMP_WORDBREAKS == *:* && ${last%"${last##*:}"} == "$keep"* ]] && keep=${last%"${last##*:}"}

	COMPREPLY=()
	while IFS= read -r line; do
		case $line in
		:files) compopt -o default ;;
		:dirs) compopt -o dirnames ;;
		:nospace) compopt -o nospace ;;
		*)
			line=${line%%$'\t'*}
			COMPREPLY+=("${line#"$keep"}")
			;;
		esac
	done < <("${words[0]/#\~/$HOME}" __complete "${words[@]:1}" 2>/dev/null)
}

complete -F _caisson caisson
