"""Names under which tables of plays hold their columns, in the languages whose months are read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

USUAL_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "user": (
        *("user", "userid", "uid", "username", "listener", "listenerid", "account", "accountid"),
        *("customer", "customerid", "member", "memberid", "profileid"),
        *("benutzer", "benutzername", "benutzerid", "nutzer", "nutzername", "nutzerid", "horer"),
        *("usuario", "usuarioid", "idusuario", "nombreusuario", "oyente"),
        *("utilisateur", "idutilisateur", "nomutilisateur", "auditeur"),
        *("utilizador", "ouvinte", "utente", "ascoltatore", "gebruiker", "luisteraar"),
    ),
    "time": (
        *("startedat", "starttime", "start", "playedat", "listenedat", "timestamp", "eventtime"),
        *("time", "datetime", "utctime", "createdat", "endedat", "endtime", "stoppedat"),
        *("stoptime", "end", "stop", "ts", "playedon", "listenedon", "entrydate", "uts"),
        *("zeitpunkt", "zeitstempel", "startzeit", "beginn", "gehortam", "abgespieltam", "zeit"),
        *("gestartetam", "begonnenam", "startzeitpunkt", "wiedergegebenam"),
        *("uhrzeit", "datumuhrzeit", "datumundzeit", "datumunduhrzeit", "endzeit", "ende"),
        *("fechahora", "fechayhora", "marcatiempo", "horainicio", "inicio", "escuchadoel"),
        *("reproducidoel", "hora", "horafin"),
        *("horodatage", "dateheure", "dateetheure", "heuredebut", "debut", "ecoutele", "heure"),
        *("dateecoute", "dateheureecoute", "heureecoute", "datelecture"),
        *("fechaescucha", "fechareproduccion", "dataouvido", "datareproducao", "dataascolto"),
        *("luisterdatum", "datumbeluisterd", "hordatum", "abspieldatum", "wiedergabedatum"),
        *("heurefin", "datahora", "dataehora", "dataora", "dataeora", "ascoltatoil", "ora"),
        *("tijdstip", "datumtijd", "starttijd", "begintijd", "afgespeeldop", "tijd", "eindtijd"),
        *("date", "datum", "fecha", "data"),
    ),
    "began": ("offlinetimestamp",),
    "track": (
        *("trackid", "songid", "trackuri", "uri", "itemid", "recordingid", "isrc", "track"),
        *("spotifyuri", "spotifytrackid", "spotifyid"),
        *("titelid", "liedid", "idcancion", "idpista", "idchanson", "idtitre", "idmorceau"),
        *("idmusica", "idfaixa", "idbrano", "idtraccia"),
    ),
    "title": (
        *("title", "trackname", "tracktitle", "songname", "songtitle", "song"),
        *("titel", "songtitel", "liedtitel", "musiktitel", "lied"),
        *("titulo", "titulocancion", "nombrecancion", "cancion", "pista"),
        *("titre", "titrechanson", "nomchanson", "chanson", "morceau", "piste"),
        *("musica", "cancao", "faixa", "titolo", "canzone", "brano", "traccia", "liedje"),
        *("nummer", "name"),
    ),
    "artist": (
        *("artist", "artistname", "performer", "trackartist", "songartist"),
        *("interpret", "kunstler", "kuenstler", "kunstlername", "artista", "interprete"),
        *("nombreartista", "artiste", "nomartiste", "artiest", "uitvoerder"),
    ),
    "played_ms": (
        *("msplayed", "playedms", "listenms", "listenedms", "mslistened", "heardms"),
        *("playdurationms", "durationplayedms"),
    ),
    "played_s": ("secondsplayed", "playedseconds", "secondslistened", "listenseconds", "playeds"),
    "duration_ms": ("durationms", "trackdurationms", "lengthms", "tracklengthms"),
    "duration_s": (
        *("durations", "durationsec", "durationseconds", "lengthseconds", "lengths"),
        "tracklengthseconds",
    ),
    "played_share": (
        *("playedshare", "playedratio", "playedratiopct", "playratio", "completion"),
        *("completionrate", "percentplayed", "playedpercent", "playedpct", "listenedpct"),
        *("anteilgehort", "gehorteranteil", "prozentgehort", "gehortprozent"),
        *("porcentajeescuchado", "pourcentageecoute", "porcentagemouvida", "percentualeascoltata"),
    ),
    "completed": (
        *("completed", "iscompleted", "complete", "finished", "playedtoend"),
        *("vollstandig", "zuendegehort", "completo", "completa", "complet", "volledig"),
    ),
    "skipped": (
        *("skipped", "isskipped", "skip", "wasskipped", "ubersprungen", "uebersprungen"),
        *("saltado", "saltada", "omitido", "omitida", "saute", "pulado", "pulada", "saltato"),
        *("saltata", "overgeslagen"),
    ),
    "source": ("isorganic", "organic", "isrecommended", "recommended", "source"),
    "context": ("context", "contexttype"),
    "shuffle": (
        *("shuffle", "isshuffle", "shuffled", "zufallswiedergabe", "aleatorio", "aleatoire"),
    ),
    "reason_start": ("reasonstart",),
    "reason_end": ("reasonend",),
    "platform": (
        *("platform", "device", "deviceid", "devicetype", "plattform", "gerat", "plataforma"),
        *("dispositivo", "plateforme", "appareil", "piattaforma", "apparaat"),
    ),
}
"""Names, as `folded`, under which columns are proposed; earlier ones first."""
WITHOUT_UNIT: Final[Mapping[str, tuple[str, ...]]] = {
    "played": (
        *("played", "listened", "heard", "playtime", "listeningtime", "timeplayed"),
        *("gehort", "gehorte", "hordauer", "horzeit", "abspieldauer", "wiedergabedauer"),
        *("escuchado", "escuchados", "tiempoescuchado", "tiempoescucha", "tiemporeproduccion"),
        *("ecoute", "ecoutees", "tempsecoute", "dureeecoute", "dureeecoutee", "dureelecture"),
        *("ouvido", "ouvidos", "tempoouvido", "temporeproducao", "ascoltato", "ascoltati"),
        *("tempoascolto", "durataascolto", "beluisterd", "geluisterd", "luistertijd"),
    ),
    "duration": (
        *("duration", "length", "tracklength", "trackduration", "songlength"),
        *("tracktime", "songtime"),
        *("dauer", "lange", "laenge", "spieldauer", "titeldauer", "titellange", "songlange"),
        *("duracion", "duracioncancion", "longitud", "duree", "dureechanson", "dureetitre"),
        *("dureemorceau", "longueur", "duracao", "duracaomusica", "durata", "lunghezza", "duur"),
        *("lengte",),
    ),
}
"""Names that leave the unit to a word beside them, of `UNIT_WORDS`, or to the values."""
SONGS: Final = (
    *("track", "song", "title", "titel", "lied", "cancion", "pista", "chanson", "morceau", "titre"),
    *("musica", "faixa", "brano", "traccia", "canzone", "nummer", "liedje"),
)
"""Names that are a song's length where a word of a unit stands beside them: "Track seconds"."""
DATES: Final = (
    *("date", "day", "playdate", "listendate", "datum", "tag", "fecha", "dia", "jour", "data"),
    *("giorno", "dag"),
)
UNIT_WORDS: Final[Mapping[str, frozenset[str]]] = {
    "ms": frozenset(
        {"ms", "msec", "millis", "milliseconds", "millisekunden", "milisegundos", "millisecondes"}
        | {"milissegundos", "millisecondi", "milliseconden"}
    ),
    "s": frozenset(
        {"s", "sec", "secs", "second", "seconds", "sek", "sekunden", "seg", "segundos"}
        | {"seconde", "secondes", "secondi", "seconden"}
    ),
}
_SMALL: Final = frozenset(
    {"in", "of", "the", "der", "des", "en", "de", "del", "la", "le", "l", "d", "du"}
    | {"em", "da", "do", "di", "della", "van", "utc", "gmt"}
)
"""Words between those that tell."""

_WORDS: Final = re.compile(r"[^\W_A-Z]+|[A-Z]+[^\W_A-Z]*")
_OF_RECORDS: Final = ("createdat", "updatedat")


def folded(name: str) -> str:
    """A name in small letters and digits, without accents, blanks and marks.

    >>> folded("Künstler (Name)")
    'kunstlername'
    """
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", name.casefold())))


def without_unit(name: str) -> tuple[str, str]:
    """A name without small words and words of a unit, folded, and the unit: ms, s or empty.

    >>> without_unit("Duración de la canción (ms)"), without_unit("track's length")
    (('duracioncancion', 'ms'), ('trackslength', ''))
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = [folded(word) for word in re.findall(r"[^\W_]+(?:['\u2019]s\b)?", spaced)]
    told = [unit for unit, known in UNIT_WORDS.items() if known.intersection(words)]
    aside = _SMALL.union(*UNIT_WORDS.values())
    return "".join(word for word in words if word not in aside), told[0] if told else ""


def telling_end(name: str) -> str:
    """The last part of a dotted name, folded, if it tells without the rest; else empty.

    One word, such as ``name`` or ``id``, does not, nor what is told of an album, nor when a record
    was made.

    >>> telling_end("playback.startedAt"), telling_end("track.artist.name"), telling_end("user.id")
    ('startedat', 'artistname', '')
    """
    *before, last = name.split(".")
    if not before or "album" in folded(name):
        return ""
    if _WORDS.findall(last)[1:]:
        end = folded(last)
        return "" if end in _OF_RECORDS else end
    return folded(".".join(name.split(".")[-2:])) if before[1:] else ""
